"""A WebSocket server that sends back whatever it gets, and says at which path it was reached."""

import os

from websockets.sync.server import serve


def echo(connection):
    connection.send(connection.request.path)
    for message in connection:
        connection.send(message)


serve(echo, os.environ["HOST"], int(os.environ["PORT"])).serve_forever()
