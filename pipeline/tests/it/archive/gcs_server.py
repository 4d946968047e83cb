"""Google's Cloud Storage for a test: its XML API is S3's but for who asks, so moto keeps the objects.

Prints one line of JSON: where it is, the key of a service account that it knows, and one of another that it does
not. Who asks proves it as Google's servers want it: a token that the account signed itself (RFC 7519, RS256,
https://google.aip.dev/auth/4111). Every fifth upload is refused once with 503. It ends with its standard input.
"""

import base64
import json
import sys
import threading
import time

import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "archive"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# what moto takes for somebody; it checks nothing more
SOMEBODY = "AWS4-HMAC-SHA256 Credential=somebody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
seen = {"parts": 0, "refused": 0}
lock = threading.Lock()
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
other = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def account(private):
    """The key of a service account, as Google hands it out."""
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    described = {
        "type": "service_account",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "tapeline@project.iam.gserviceaccount.com",
    }
    return json.dumps(described)


def is_known(authorization):
    """Whether a token of the account's is there, valid now and for what is asked."""
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer" or token.count(".") != 2:
        return False
    signed, _, signature = token.rpartition(".")
    try:
        key.public_key().verify(decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    claims = json.loads(decoded(signed.partition(".")[2]))
    return claims["iat"] - 5 <= time.time() < claims["exp"] and claims["scope"] == SCOPE


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def error(start, status, code):
    start(status, [("content-type", "application/xml")])
    return [f"<Error><Code>{code}</Code></Error>".encode()]


class Google:
    """Asks who asks, refuses some uploads, and numbers what was written."""

    def __init__(self, application):
        self.application = application
        self.uploads = 0

    def __call__(self, environment, start):
        if environment["PATH_INFO"] == "/seen":
            start("200 OK", [("content-type", "application/json")])
            return [json.dumps(seen).encode()]
        length = int(environment.get("CONTENT_LENGTH") or 0)
        if not is_known(environment.get("HTTP_AUTHORIZATION", "")):
            environment["wsgi.input"].read(length)
            return error(start, "401 Unauthorized", "AuthenticationRequired")
        environment["HTTP_AUTHORIZATION"] = SOMEBODY
        with lock:
            upload = environment["REQUEST_METHOD"] == "PUT"
            self.uploads += upload
            generation = time.time_ns() // 1000
            seen["parts"] += upload and "uploadId" in environment.get("QUERY_STRING", "")
            refused = upload and self.uploads % 5 == 0
            seen["refused"] += refused
        if refused:
            environment["wsgi.input"].read(length)
            return error(start, "503 Service Unavailable", "ServiceUnavailable")

        def numbered(status, headers, *more):
            return start(status, [*headers, ("x-goog-generation", str(generation))], *more)

        return self.application(environment, numbered)


store = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, Google(store), threaded=True)
inside = make_server("127.0.0.1", 0, store, threaded=True)
for served in (server, inside):
    threading.Thread(target=served.serve_forever, daemon=True).start()
# a bucket is made through Google's other API, which the archive does not need: here past the door
requests.put(f"http://127.0.0.1:{inside.server_port}/{BUCKET}", timeout=60).raise_for_status()
endpoint = f"http://127.0.0.1:{server.server_port}"
told = {"endpoint": endpoint, "account": account(key), "other": account(other), "seen": f"{endpoint}/seen"}
print(json.dumps(told), flush=True)
sys.stdin.read()
