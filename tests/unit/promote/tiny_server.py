"""A server that starts in a few hundredths of a second, for tests that start hundreds: `tiny_server.py --config FILE`.

It says which configuration it runs with, and asks for the key in its environment as vLLM and our Whisper do. Run it with `python -S`.
"""

import os
import socket
import sys

with open(sys.argv[sys.argv.index("--config") + 1], encoding="utf-8") as file:
    config = dict(line.rstrip("\n").split(": ", 1) for line in file if not line.startswith("#"))
is_vllm = "served-model-name" in config
key = os.environ["VLLM_API_KEY" if is_vllm else "TUNE_GPU_API_KEY"]
if is_vllm:
    message = f'{{"data": [{{"id": "{config["served-model-name"]}", "max_model_len": {config["max-model-len"]}}}]}}'
else:
    message = f'{{"name": "{config["name"]}", "device": "cpu"}}'
listener = socket.create_server((config["host"].strip("'"), int(config["port"])))
while True:
    connection, _ = listener.accept()
    with connection:
        asked = b""
        while b"\r\n\r\n" not in asked and (part := connection.recv(65536)):
            asked += part
        head, _, body = asked.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        while len(body) < length and (part := connection.recv(65536)):  # what is not read would reset the connection
            body += part
        is_open = is_vllm and b" /v1/" not in asked.split(b"\r\n", 1)[0]
        known = f"Authorization: Bearer {key}\r\n".encode() in asked
        status = "200 OK" if known or is_open else "401 Unauthorized"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(message)}\r\nConnection: close\r\n\r\n{message}".encode())
