#!/usr/bin/env python3
"""A registry that is not as it should be: passes what it is asked on to a registry here, but for what is odd about it.

    odd_registry.py TARGET_PORT --no-ranges           answers with the whole blob, whatever range is asked for
    odd_registry.py TARGET_PORT --lie-file PATH       while PATH exists, a byte of every range of a blob is wrong

The port that it listens on is the first line that it prints. After that, a line for each range that was asked for:
`whole` or `right` or `wrong`, what was asked for, and the path. Only reads; ends on SIGTERM.
"""

import argparse
import http.client
import http.server
import os
import signal
import sys

HOST = "127.0.0.1"
# What belongs to one connection, and not to what is sent over it.
OF_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "te", "upgrade")


class Odd(http.server.BaseHTTPRequestHandler):
    """One connection, and one to the target for each request."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer leave together.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    arguments = None

    def log_message(self, *_):
        """The output is what the test reads."""

    def do_GET(self):
        wanted = self.headers.get("Range")
        target = http.client.HTTPConnection(HOST, self.arguments.target_port)
        try:
            # The target calls itself what the client calls it. A header may be there several times.
            target.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in OF_CONNECTION and not (self.arguments.no_ranges and name.lower() == "range"):
                    target.putheader(name, value)
            target.endheaders()
            answer = target.getresponse()
            body = answer.read()
        finally:
            target.close()
        if wanted is not None and "/blobs/" in self.path and self.command == "GET":
            body = self.told(wanted, answer.status, body)
        self.send_response(answer.status)
        dropped = [*OF_CONNECTION, "date", "server"]
        if self.arguments.no_ranges:
            # As if it had never heard of them.
            dropped.append("accept-ranges")
        if self.command != "HEAD":
            # It may have come in pieces without one.
            dropped.append("content-length")
            self.send_header("Content-Length", str(len(body)))
        for name, value in answer.getheaders():
            if name.lower() not in dropped:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def told(self, wanted, status, body):
        """The body, perhaps with a wrong byte, and a line about it."""
        how = "right" if status == 206 else "whole"
        lies = self.arguments.lie_file is not None and os.path.lexists(self.arguments.lie_file)
        if lies and status == 206 and body:
            how, middle = "wrong", len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1 :]
        print(how, wanted, self.path, flush=True)
        return body


class Server(http.server.ThreadingHTTPServer):
    """Clients that go away are nothing to tell."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target_port", type=int)
    parser.add_argument("--no-ranges", action="store_true")
    parser.add_argument("--lie-file", metavar="PATH")
    Odd.arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = Server((HOST, 0), Odd)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
