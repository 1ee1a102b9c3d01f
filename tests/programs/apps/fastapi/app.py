from fastapi import FastAPI, WebSocket
from fastapi.responses import RedirectResponse

app = FastAPI()


@app.get("/hello/{name}")
def hello(name: str):
    return f"hello, {name}"


@app.get("/old")
def old():
    return RedirectResponse("/new")


@app.websocket("/upper")
async def upper(socket: WebSocket):
    await socket.accept()
    await socket.send_text(socket.url.path)
    async for message in socket.iter_text():
        await socket.send_text(message.upper())
