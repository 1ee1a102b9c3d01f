from flask import Flask, make_response, redirect

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello from flask"


@app.get("/old")
def old():
    return redirect("/new")


@app.get("/cookie")
def cookie():
    response = make_response("set")
    response.set_cookie("name", "value")
    return response
