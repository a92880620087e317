//! Short messages between related processes, each with at most one descriptor (SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

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
}
