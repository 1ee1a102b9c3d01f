const { createServer } = require("node:http");

createServer((request, response) => response.end(`hello from node at ${request.url}\n`)).listen(
    process.env.PORT,
    process.env.HOST,
    () => console.log(JSON.stringify({ level: 30, msg: "listening" })),
);
