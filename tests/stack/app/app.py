"""A web app with rows in PostgreSQL: GET /rows lists them, POST /rows adds one, GET /health asks the database."""

import http.server
import json
import os
import time

import psycopg2

VERSION = 1


def ask(statement, *values):
    """Each request has a connection of its own: none outlives a restart of the database."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def make_table():
    """Waits for the database, which nobody promised to start first."""
    while True:
        try:
            return ask("CREATE TABLE IF NOT EXISTS rows (id serial PRIMARY KEY, text text NOT NULL)")
        except psycopg2.OperationalError as error:
            print(f"the database is not there yet: {str(error).strip()}")
            time.sleep(0.2)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer(lambda: {"version": VERSION, "up": ask("SELECT 1")[0][0]})
        elif self.path == "/rows":
            self.answer(lambda: {"version": VERSION, "rows": [row[0] for row in ask("SELECT text FROM rows ORDER BY id")]})
        else:
            self.send_error(404)

    def do_POST(self):
        if self.path != "/rows":
            self.send_error(404)
            return
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(lambda: {"version": VERSION, "id": ask("INSERT INTO rows (text) VALUES (%s) RETURNING id", text)[0][0]})

    def answer(self, make):
        try:
            status, value = 200, make()
        except psycopg2.Error as error:
            status, value = 503, {"version": VERSION, "error": str(error).strip()}
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    make_table()
    server = http.server.ThreadingHTTPServer(("", 8000), Handler)
    print(f"version {VERSION} listens on {server.server_port}")
    server.serve_forever()
