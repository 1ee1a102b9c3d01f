//! The server's connection: requests, responses, and how it ends.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;

use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hubspoke_http1::{
    Command, ConnectionEnd, HeadError, RequestBody, ServerConfig, ServerConnection, Supervisor,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

type Requests = RequestBody<ReadHalf<DuplexStream>>;

/// Serves a client that runs beside it. Returns how the connection ended, and what the client returned.
async fn serve<B, F, C, T>(
    supervisor: impl Supervisor<WriteHalf<DuplexStream>>,
    handle: impl Fn(Request<Requests>) -> F,
    client: impl FnOnce(DuplexStream) -> C,
) -> (ConnectionEnd<B>, T)
where
    B: Body<Data = Bytes> + Unpin,
    F: Future<Output = Response<B>>,
    C: Future<Output = T>,
{
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (read, write) = tokio::io::split(ours);
    let config = ServerConfig { discard_timeout: Duration::from_millis(100), ..ServerConfig::default() };
    let server = async {
        let mut connection = ServerConnection::new(read, write, Bytes::new(), supervisor, config);
        connection.run(handle).await
    };
    let (returned, end) = tokio::join!(client(theirs), server);
    (end, returned)
}

async fn echo(request: Request<Requests>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await;
    Response::new(Full::new(body.map_or(Bytes::from_static(b"broken"), |body| body.to_bytes())))
}

async fn ignore(_: Request<Requests>) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(b"no")))
}

/// A client that sends all at once, and reads to the end.
async fn send(mut stream: DuplexStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).await.unwrap();
    replies
}

/// Reads until the text ends like this.
async fn read_until(stream: &mut DuplexStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

#[tokio::test]
async fn requests_in_a_pipeline_are_answered_in_order() {
    let text = "PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\naPUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                1\r\nb\r\n0\r\n\r\nGET /c HTTP/1.1\r\nConnection: close\r\n\r\n";
    let (end, replies) = serve((), echo, |stream| send(stream, text)).await;
    assert!(matches!(end, ConnectionEnd::Closed { linger: false }));
    assert_eq!(replies.matches("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n").count(), 2, "{replies}");
    let bodies =
        [replies.find("\r\n\r\na"), replies.find("\r\n\r\nb"), replies.find("connection: close\r\n")];
    assert!(bodies.is_sorted() && bodies.iter().all(Option::is_some), "{replies}");
}

#[tokio::test]
async fn a_bad_request_is_left_to_the_caller() {
    let text = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n";
    let (end, replies) = serve((), echo, |stream| send(stream, text)).await;
    assert!(matches!(end, ConnectionEnd::BadRequest(HeadError::TransferCoding)));
    assert_eq!(replies.matches("HTTP/1.1 200 OK").count(), 1);
}

#[tokio::test]
async fn a_client_is_told_to_continue_when_its_body_is_wanted_and_not_before() {
    let head = "PUT /a HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    let client = async |mut stream: DuplexStream| {
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"a").await.unwrap();
        read_until(&mut stream, "\r\n\r\na").await
    };
    serve((), echo, client).await;
    let (end, reply) = serve((), ignore, |stream| send(stream, head)).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.contains("connection: close"), "{reply}");
    assert!(matches!(end, ConnectionEnd::Closed { linger: true }));
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_discarded_for_a_while() {
    let client = async |mut stream: DuplexStream| {
        stream.write_all(b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\na").await.unwrap();
        read_until(&mut stream, "no").await;
        stream.write_all(b"bcGET /b HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        read_until(&mut stream, "no").await
    };
    let (end, _) = serve((), ignore, client).await;
    assert!(matches!(end, ConnectionEnd::Closed { linger: false }));
    let text = "PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\na";
    let (end, _) = serve((), ignore, |stream| send(stream, text)).await;
    assert!(matches!(end, ConnectionEnd::Closed { linger: true }), "the rest never came");
}

#[tokio::test]
async fn after_a_101_the_caller_gets_the_body_back() {
    let switch = async |_: Request<Requests>| {
        let response = Response::builder().status(101).header("upgrade", "x").body(Full::from("theirs"));
        response.unwrap()
    };
    let text = "GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let (end, reply) = serve((), switch, |stream| send(stream, text)).await;
    assert_eq!(reply, "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n");
    let ConnectionEnd::Upgraded(body) = end else { panic!("{end:?}") };
    assert_eq!(body.collect().await.unwrap().to_bytes(), "theirs");
}

#[tokio::test]
async fn a_connection_ends_with_its_client() {
    let (started, mut handled) = tokio::sync::mpsc::unbounded_channel();
    let never = |_: Request<Requests>| {
        started.send(()).unwrap();
        std::future::pending::<Response<Empty<Bytes>>>()
    };
    let client = async |mut stream: DuplexStream| {
        stream.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
        handled.recv().await.unwrap();
        drop(stream);
    };
    let (end, ()) = serve((), never, client).await;
    assert!(matches!(end, ConnectionEnd::Closed { linger: false }));
}

/// Gives a command, and notes the states that it learns of.
struct Watch {
    command: Cell<Command>,
    seen: RefCell<Vec<&'static str>>,
}

impl Watch {
    fn note(&self, state: &'static str) {
        let mut seen = self.seen.borrow_mut();
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    }
}

impl<W> Supervisor<W> for &Watch {
    fn command(&self, _: &Waker) -> Command {
        self.command.get()
    }

    fn reading_head(&self, memory: usize) {
        self.note(if memory > 0 { "partial head" } else { "head" });
    }

    fn close_delimited(&self, _: &W, is_open: bool) {
        self.note(if is_open { "open" } else { "closed" });
    }
}

#[tokio::test]
async fn commands_are_obeyed() {
    for (command, head, replies) in [
        (Command::Drain, "GET /a HTTP/1.1\r\n\r\n", 1),
        (Command::Timeout, "GET /a HTTP/1.1\r\n\r\n", 0),
        (Command::Close, "GET /a HTTP/1.1\r\n\r\n", 0),
        (Command::Drain, "", 0),
    ] {
        let watch = Watch { command: Cell::new(command), seen: RefCell::default() };
        let (end, text) = serve(&watch, echo, |stream| send(stream, head)).await;
        assert_eq!(text.matches("connection: close").count(), replies, "{text}");
        assert_eq!(matches!(end, ConnectionEnd::Timeout), command == Command::Timeout);
    }
}

#[tokio::test]
async fn a_supervisor_learns_of_partial_heads_and_of_responses_without_a_length() {
    let watch = Watch { command: Cell::new(Command::Continue), seen: RefCell::default() };
    let stream = async |_: Request<Requests>| {
        let frames = ["a", "b"].map(|text| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(text))));
        Response::new(StreamBody::new(futures_util::stream::iter(frames)))
    };
    let client = async |mut stream: DuplexStream| {
        stream.write_all(b"GET /a ").await.unwrap();
        while watch.seen.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        send(stream, "HTTP/1.0\r\n\r\n").await
    };
    let (_, reply) = serve(&watch, stream, client).await;
    assert!(
        reply.starts_with("HTTP/1.0 200 OK\r\nconnection: close\r\n") && reply.ends_with("ab"),
        "{reply}"
    );
    assert_eq!(*watch.seen.borrow(), ["partial head", "head", "open", "closed"]);
}
