//! Short messages between processes of one user, each with at most one descriptor (SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    UnixAddr, accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, shutdown, socket, socketpair,
};
use rustix::fs::{AtFlags, Mode};

/// Bytes of one message: a fatal error text fits.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// One end of a SOCK_SEQPACKET pair: message boundaries hold, and several writers do not mix.
#[derive(Debug)]
pub struct MessageSocket(OwnedFd);

/// What arrived.
#[derive(Debug)]
pub struct Message {
    /// The bytes; never empty.
    pub bytes: Vec<u8>,
    /// The descriptor that came along.
    pub fd: Option<OwnedFd>,
}

impl MessageSocket {
    /// Two connected ends.
    ///
    /// # Errors
    /// What socketpair(2) says.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(one), Self(other)))
    }

    /// Another descriptor for the same end.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Connects to the socket that is called `name` in a directory, however long the directory's path is.
    ///
    /// # Errors
    /// What socket(2) and connect(2) say; `ConnectionRefused` when nobody listens any more.
    pub fn connect(directory: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(fd.as_raw_fd(), &address(directory, name)?)?;
        Ok(Self(fd))
    }

    /// Sends one message, if there is room for it now; whether there was.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<bool> {
        let bytes = &bytes[..bytes.len().min(MESSAGE_BYTES_MAX)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], &[], flags, None) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Neither end hears anything more, also those who have a copy.
    pub fn shut_down(&self) {
        if let Err(error) = shutdown(self.0.as_raw_fd(), Shutdown::Both) {
            tracing::debug!(%error, "the other end is gone already");
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// What sendmsg(2) says; `EPIPE` when the other end is gone.
    pub fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[] } else { &rights[..] };
        let bytes = &bytes[..bytes.len().min(MESSAGE_BYTES_MAX)];
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits for one message; `None` when every other end is closed.
    ///
    /// # Errors
    /// What recvmsg(2) says.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut control = nix::cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received =
            recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fd = None;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                for raw in fds {
                    // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows of it.
                    fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        let len = received.bytes;
        bytes.truncate(len);
        Ok((len > 0).then_some(Message { bytes, fd }))
    }
}

/// The descriptor that somebody sends who connects to a stream socket, as OCI runtimes send a terminal. Waits for both.
///
/// # Errors
/// What accept(2) and recvmsg(2) say; `NotFound` when none came.
pub fn receive_descriptor(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept()?;
    let message = MessageSocket(stream.into()).receive()?;
    message.and_then(|message| message.fd).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Takes connections of the same user, and of root, at a name in a directory.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    directory: OwnedFd,
    name: String,
}

impl Listener {
    /// Listens at `name`, with mode 0600, in place of who did so before. The caller makes sure that this one has ended.
    ///
    /// # Errors
    /// What socket(2), unlink(2), bind(2), chmod(2) and listen(2) say.
    pub fn bind(directory: OwnedFd, name: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        bind(socket.as_raw_fd(), &address(directory.as_fd(), name)?)?;
        let listener = Self { socket, directory, name: name.to_owned() };
        // Nobody can connect before listen(2).
        rustix::fs::chmodat(&listener.directory, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        listen(&listener.socket, Backlog::new(CONNECTIONS_WAITING_MAX)?)?;
        Ok(listener)
    }

    /// One who wants to connect, and may; `None` when there is nobody.
    ///
    /// # Errors
    /// What accept(2) and getsockopt(2) say.
    pub fn accept(&self) -> io::Result<Option<MessageSocket>> {
        let fd = match accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(fd) => fd,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR | nix::errno::Errno::ECONNABORTED) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        // SAFETY: accept4 has just made this descriptor, and nobody else knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let uid = getsockopt(&fd, PeerCredentials)?.uid();
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Ok(Some(MessageSocket(fd)));
        }
        tracing::warn!(uid, "refused a connection");
        Ok(None)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::unlinkat(&self.directory, self.name.as_str(), AtFlags::empty()) {
            tracing::debug!(%error, "the socket has gone with its directory");
        }
    }
}

/// The directory's path may be longer than an address can be.
fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<UnixAddr> {
    Ok(UnixAddr::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).as_str())?)
}

/// Who connects while we are busy.
const CONNECTIONS_WAITING_MAX: i32 = 16;

impl From<MessageSocket> for OwnedFd {
    fn from(socket: MessageSocket) -> Self {
        socket.0
    }
}

impl AsFd for MessageSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (one, other) = MessageSocket::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        one.send(b"first", Some(writer.as_fd())).unwrap();
        one.send(b"second", None).unwrap();
        drop(writer);
        let first = other.receive().unwrap().unwrap();
        assert_eq!(first.bytes, b"first");
        let mut received = std::fs::File::from(first.fd.unwrap());
        received.write_all(b"through").unwrap();
        drop(received);
        let second = other.receive().unwrap().unwrap();
        assert_eq!(second.bytes, b"second");
        assert!(second.fd.is_none());
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(one);
        assert!(other.receive().unwrap().is_none());
    }

    #[test]
    fn one_listens_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than an address.
        let long = dir.path().join("d".repeat(200));
        std::fs::create_dir(&long).unwrap();
        let open = || OwnedFd::from(std::fs::File::open(&long).unwrap());
        assert!(MessageSocket::connect(open().as_fd(), "s").is_err());
        let first = Listener::bind(open(), "s").unwrap();
        assert!(first.accept().unwrap().is_none());
        let client = MessageSocket::connect(open().as_fd(), "s").unwrap();
        let accepted = first.accept().unwrap().unwrap();
        assert!(accepted.send_now(b"hello").unwrap());
        assert_eq!(client.receive().unwrap().unwrap().bytes, b"hello");
        // Until there is no room.
        while accepted.send_now(&[0; MESSAGE_BYTES_MAX]).unwrap() {}
        accepted.shut_down();
        while client.receive().unwrap().is_some() {}
        // One that was killed has left its socket.
        std::mem::forget(first);
        let second = Listener::bind(open(), "s").unwrap();
        MessageSocket::connect(open().as_fd(), "s").unwrap();
        assert!(second.accept().unwrap().is_some());
        drop(second);
        assert!(std::fs::read_dir(&long).unwrap().next().is_none());
    }
}
