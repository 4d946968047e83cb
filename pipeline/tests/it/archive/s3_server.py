"""An S3 server for a test: moto, which checks signatures. Its folder of objects is in memory.

Prints one line of JSON: where it is, and a key that it takes. Every fifth upload is refused once with
503, as S3 does when it is busy. `GET /seen` says what was asked of it. It ends with its standard input.
With a certificate of localhost and its key as arguments it speaks TLS.
"""

import io
import json
import os
import sys
import threading

# requests that need no right yet: they make the user and the bucket
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "5"

import boto3  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

BUCKET = "archive"
certificate = tuple(sys.argv[1:3]) or None
seen = {"parts": 0, "refused": 0, "encrypted": 0, "rules": ""}
lock = threading.Lock()


class Busy:
    """Counts requests, and refuses some uploads."""

    def __init__(self, application):
        self.application = application
        self.uploads = 0

    def __call__(self, environment, start):
        method, query = environment["REQUEST_METHOD"], environment.get("QUERY_STRING", "")
        if environment["PATH_INFO"] == "/seen":
            start("200 OK", [("content-type", "application/json")])
            return [json.dumps(seen).encode()]
        with lock:
            upload = method == "PUT" and "lifecycle" not in query
            self.uploads += upload
            seen["parts"] += upload and "uploadId" in query
            seen["encrypted"] += "HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION" in environment
            refused = upload and self.uploads % 5 == 0
            seen["refused"] += refused
        if method == "PUT" and "lifecycle" in query:
            body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            seen["rules"] = body.decode()
            environment["wsgi.input"] = io.BytesIO(body)
        if refused:
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("content-type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code></Error>"]
        return self.application(environment, start)


application = Busy(DomainDispatcherApplication(create_backend_app))
server = make_server("127.0.0.1", 0, application, threaded=True, ssl_context=certificate)
close = server.shutdown_request


def say_goodbye(connection):
    """Ends TLS before the connection, as every other server does: an end without it looks like an attack."""
    try:
        connection.unwrap()
    except OSError:
        pass
    close(connection)


if certificate:
    server.shutdown_request = say_goodbye
threading.Thread(target=server.serve_forever, daemon=True).start()
host = "https://localhost" if certificate else "http://127.0.0.1"
endpoint = f"{host}:{server.server_port}"
anybody = {
    "endpoint_url": endpoint,
    "region_name": "us-east-1",
    "aws_access_key_id": "nobody",
    "aws_secret_access_key": "nothing",
    "verify": certificate and certificate[0],
}
iam = boto3.client("iam", **anybody)
iam.create_user(UserName="tapeline")
key = iam.create_access_key(UserName="tapeline")["AccessKey"]
statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
iam.put_user_policy(UserName="tapeline", PolicyName="archive", PolicyDocument=document)
boto3.client("s3", **anybody).create_bucket(Bucket=BUCKET)
print(json.dumps({"endpoint": endpoint, "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}), flush=True)
sys.stdin.read()
