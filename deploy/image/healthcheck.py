"""Exit 0 if the service in this container is ready, 1 with the reason if not: the image's HEALTHCHECK."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("CTRANK_PORT", "8000")), timeout=2)
try:
    connection.request("GET", "/readyz")
    reply = connection.getresponse()
    print(reply.status, reply.read(1000).decode())
    sys.exit(reply.status != 200)
except OSError as error:
    print(error)
    sys.exit(1)
