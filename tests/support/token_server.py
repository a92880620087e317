#!/usr/bin/env python3
"""Gives out tokens for a docker-registry (distribution, "Token Authentication Specification"): token_server.py DIR

Everybody may pull what is in `public/`; `me` with the password `pw` may do everything. Whoever gives another password gets
nothing. The registry trusts DIR/issuer.pem, calls itself `hub` and this one `judge`. DIR/seconds has the time that a token
lasts. DIR/log gets a line for each token: `anybody` or `me`, and what was asked for, one by one; `refused` and who for the
others, `nonsense` and the query for what nobody can mean.

The port that it listens on is the first line that it prints. Ends when it is killed.
"""

import base64
import http.server
import json
import math
import pathlib
import re
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

HOST = "127.0.0.1"
# docker-registry takes a token for so much longer than it says, as clocks differ.
LEEWAY_SECONDS = 60
ME = "Basic " + base64.b64encode(b"me:pw").decode()
SCOPE = re.compile(r"repository:([a-z0-9/._-]+):([a-z]+(?:,[a-z]+)*)")


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """A key, and its certificate."""

    def __init__(self, directory):
        self.directory = directory
        self.key = directory / "issuer.key"
        certificate = directory / "issuer.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=judge", "-days", "2"]
        self.openssl([*command, "-keyout", self.key, "-out", certificate])
        self.chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(certificate.read_text())).decode()]

    def openssl(self, command, data=None):
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    def token(self, who, access):
        # It ends with a second, and never too early.
        now = time.time()
        ends = math.ceil(now + float((self.directory / "seconds").read_text()))
        head = {"typ": "JWT", "alg": "RS256", "x5c": self.chain}
        claims = {
            "iss": "judge",
            "sub": who,
            "aud": "hub",
            "exp": ends - LEEWAY_SECONDS,
            "nbf": int(now) - LEEWAY_SECONDS,
            "iat": int(now),
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        text = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims))
        signature = self.openssl(["openssl", "dgst", "-sha256", "-sign", self.key], text.encode())
        return f"{text}.{base64url(signature)}"


def allowed(who, name, action):
    return who == "me" or (name.startswith("public/") and action == "pull")


class Tokens(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    issuer = None
    lock = threading.Lock()

    def log_message(self, *_):
        """There is a log of our own."""

    def note(self, *words):
        with self.lock, (self.issuer.directory / "log").open("a", encoding="utf-8") as log:
            log.write(" ".join(words) + "\n")

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        scopes = query.get("scope", [])
        found = [SCOPE.fullmatch(scope) for scope in scopes]
        authorization = self.headers.get("Authorization")
        account = query.get("account", ["?"])[0]
        if url.path != "/token" or query.get("service") != ["hub"] or None in found:
            self.note("nonsense", self.path)
            self.answer(400, {"details": "nonsense"})
        elif authorization not in (None, ME):
            self.note("refused", account)
            self.answer(401, {"details": "wrong name or password"})
        else:
            who = "anybody" if authorization is None else "me"
            access = []
            for name, actions in (scope.groups() for scope in found):
                granted = [action for action in actions.split(",") if allowed(who, name, action)]
                access.append({"type": "repository", "name": name, "actions": granted})
            self.note(who, *scopes)
            seconds = int((self.issuer.directory / "seconds").read_text())
            self.answer(200, {"token": self.issuer.token(who, access), "expires_in": seconds})


def main():
    Tokens.issuer = Issuer(pathlib.Path(sys.argv[1]))
    server = http.server.ThreadingHTTPServer((HOST, 0), Tokens)
    print(server.server_port, flush=True)
    server.serve_forever()


main()
