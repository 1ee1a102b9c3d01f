//! A second HTTP/1 parser, to compare the engine with. It follows the grammar of RFC 9110 and RFC 9112 byte by byte and
//! shares no code with the engine, nor a parser library.
//!
//! It needs all bytes at once, is slow, and is as lenient as the RFCs allow wherever the engine may be stricter: the
//! engine may refuse what this parser reads, but must never read it differently.

/// A request and the position after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) message: Message,
    pub(crate) end: usize,
}

/// A final response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) message: Message,
    /// The position after it, if it does not end with the connection.
    pub(crate) end: Option<usize>,
}

/// What requests and responses have in common.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) fields: Vec<Field>,
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
    /// Whether the connection persists (RFC 9112, 9.3).
    pub(crate) persists: bool,
}

/// A field: its name in lower case, and its value without the white space around it.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The bytes end before it does.
    Incomplete,
    /// It is not HTTP/1.
    Invalid,
}

type Parsed<T> = Result<T, Stop>;

/// All requests of a pipeline, and why there is no further one.
pub(crate) fn requests(bytes: &[u8]) -> (Vec<Request>, Stop) {
    let mut parser = Parser { bytes, at: 0, is_response: false };
    let mut requests = Vec::new();
    loop {
        match parser.request() {
            Ok(request) => requests.push(request),
            Err(stop) => return (requests, stop),
        }
    }
}

/// The final response to a request (`head_only`: a `HEAD`), on a connection that ends after `bytes`.
pub(crate) fn response(bytes: &[u8], head_only: bool) -> Parsed<Response> {
    Parser { bytes, at: 0, is_response: true }.response(head_only)
}

/// The content and the trailers of a chunked body, and the position after it.
pub(crate) fn chunked_body(bytes: &[u8], is_response: bool) -> Parsed<(Vec<u8>, Vec<Field>, usize)> {
    let mut parser = Parser { bytes, at: 0, is_response };
    let (content, trailers) = parser.chunked()?;
    Ok((content, trailers, parser.at))
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A response may have what has only one reading: lines that end with a line feed alone (RFC 9112, 2.2), several
    /// spaces in its status line (4), white space before a colon (5.1) and after a chunk's size (7.1.1).
    is_response: bool,
}

/// The framing of a body (RFC 9112, 6.3).
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Parser<'_> {
    fn peek(&self) -> Parsed<u8> {
        self.bytes.get(self.at).copied().ok_or(Stop::Incomplete)
    }

    fn take(&mut self, is_wanted: impl Fn(u8) -> bool) -> Parsed<u8> {
        let byte = self.peek()?;
        if !is_wanted(byte) {
            return Err(Stop::Invalid);
        }
        self.at += 1;
        Ok(byte)
    }

    fn take_while(&mut self, is_wanted: impl Fn(u8) -> bool) -> Parsed<Vec<u8>> {
        let mut taken = Vec::new();
        while is_wanted(self.peek()?) {
            taken.push(self.peek()?);
            self.at += 1;
        }
        Ok(taken)
    }

    fn literal(&mut self, text: &[u8]) -> Parsed<()> {
        text.iter().try_for_each(|byte| self.take(|b| b == *byte).map(drop))
    }

    fn line_end(&mut self) -> Parsed<()> {
        if self.is_response && self.peek()? == b'\n' {
            self.at += 1;
            return Ok(());
        }
        self.literal(b"\r\n")
    }

    fn is_at_line_end(&self) -> Parsed<bool> {
        Ok(self.peek()? == b'\r' || (self.is_response && self.peek()? == b'\n'))
    }

    fn exactly(&mut self, length: u64) -> Parsed<Vec<u8>> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let content = self.bytes.get(self.at..end.ok_or(Stop::Incomplete)?).ok_or(Stop::Incomplete)?;
        self.at += content.len();
        Ok(content.to_vec())
    }

    // request-line = method SP request-target SP HTTP-version
    fn request(&mut self) -> Parsed<Request> {
        while self.is_at_line_end()? {
            self.line_end()?; // RFC 9112, 2.2: empty lines before a request-line are ignored
        }
        let method = self.token()?;
        self.literal(b" ")?;
        let target = self.take_while(|b| b > b' ' && b != 0x7f)?;
        if target.is_empty() {
            return Err(Stop::Invalid);
        }
        self.literal(b" ")?;
        let is_http_10 = self.version()?;
        self.line_end()?;
        let fields = self.fields()?;
        let persists = persists(&fields, is_http_10);
        let (content, trailers) = match request_framing(&fields, is_http_10)? {
            Framing::Length(length) => (self.exactly(length)?, Vec::new()),
            Framing::Chunked => self.chunked()?,
            Framing::UntilClose => return Err(Stop::Invalid),
        };
        Ok(Request { method, target, message: Message { fields, content, trailers, persists }, end: self.at })
    }

    // status-line = HTTP-version SP status-code SP [ reason-phrase ]
    fn response(&mut self, head_only: bool) -> Parsed<Response> {
        loop {
            while self.is_at_line_end()? {
                self.line_end()?;
            }
            let is_http_10 = self.version()?;
            self.literal(b" ")?;
            self.take_while(|b| b == b' ')?;
            let digits = [(); 3].map(|()| self.take(|b| b.is_ascii_digit()));
            let status = digits.into_iter().try_fold(0, |n, digit| Ok(n * 10 + u16::from(digit? - b'0')))?;
            if self.peek()? == b' ' {
                self.take_while(is_field_byte)?;
            }
            self.line_end()?;
            let fields = self.fields()?;
            if (100..200).contains(&status) {
                if status == 101 {
                    return Err(Stop::Invalid); // the tests never ask for an upgrade
                }
                continue;
            }
            let persists = persists(&fields, is_http_10);
            let framing = match head_only || status == 204 || status == 304 {
                true => Framing::Length(0),
                false => response_framing(&fields, is_http_10)?,
            };
            let is_until_close = matches!(framing, Framing::UntilClose);
            let (content, trailers) = match framing {
                Framing::Length(length) => (self.exactly(length)?, Vec::new()),
                Framing::Chunked => self.chunked()?,
                Framing::UntilClose => (self.bytes[self.at..].to_vec(), Vec::new()),
            };
            let end = (!is_until_close).then_some(self.at);
            return Ok(Response { status, message: Message { fields, content, trailers, persists }, end });
        }
    }

    /// Returns whether it is HTTP/1.0, and not HTTP/1.1.
    fn version(&mut self) -> Parsed<bool> {
        self.literal(b"HTTP/1.")?;
        Ok(self.take(|b| b == b'0' || b == b'1')? == b'0')
    }

    fn token(&mut self) -> Parsed<Vec<u8>> {
        let token = self.take_while(is_token_byte)?;
        if token.is_empty() { Err(Stop::Invalid) } else { Ok(token) }
    }

    // *( field-line CRLF ) CRLF, with field-line = field-name ":" OWS field-value OWS
    fn fields(&mut self) -> Parsed<Vec<Field>> {
        let mut fields = Vec::new();
        while !self.is_at_line_end()? {
            let name = self.token()?.to_ascii_lowercase();
            if self.is_response {
                self.take_while(is_blank)?;
            }
            self.literal(b":")?;
            let value = self.take_while(is_field_byte)?;
            self.line_end()?;
            fields.push((name, trim(&value).to_vec()));
        }
        self.line_end()?;
        Ok(fields)
    }

    // chunked-body = *chunk last-chunk trailer-section CRLF
    fn chunked(&mut self) -> Parsed<(Vec<u8>, Vec<Field>)> {
        let mut content = Vec::new();
        loop {
            let digits = self.take_while(|b| b.is_ascii_hexdigit())?;
            let digits = std::str::from_utf8(&digits).map_err(|_| Stop::Invalid)?;
            let size = u64::from_str_radix(digits, 16).map_err(|_| Stop::Invalid)?;
            // A recipient ignores extensions (RFC 9112, 7.1.1), so all that matters is where they end.
            let spaces = self.take_while(is_blank)?;
            if self.peek()? == b';' {
                self.take_while(is_field_byte)?;
            } else if !spaces.is_empty() && !self.is_response {
                return Err(Stop::Invalid);
            }
            self.line_end()?;
            if size == 0 {
                return Ok((content, self.fields()?));
            }
            content.extend(self.exactly(size)?);
            self.line_end()?;
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

// field-vchar = VCHAR / obs-text
fn is_field_byte(byte: u8) -> bool {
    is_blank(byte) || (byte > b' ' && byte != 0x7f)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_blank(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_blank(*last)
    {
        value = rest;
    }
    value
}

/// The elements of all fields of a name, as a list (RFC 9110, 5.6.1).
fn list(fields: &[Field], name: &str) -> Vec<Vec<u8>> {
    let values = fields.iter().filter(|(field, _)| field == name.as_bytes());
    let elements = values.flat_map(|(_, value)| value.split(|b| *b == b','));
    elements.map(|element| trim(element).to_ascii_lowercase()).filter(|element| !element.is_empty()).collect()
}

fn has(fields: &[Field], name: &str) -> bool {
    fields.iter().any(|(field, _)| field == name.as_bytes())
}

fn persists(fields: &[Field], is_http_10: bool) -> bool {
    let options = list(fields, "connection");
    let has = |option: &[u8]| options.iter().any(|other| other == option);
    !has(b"close") && (!is_http_10 || has(b"keep-alive"))
}

/// `Content-Length`: repeated values are valid if they are equal.
fn length(fields: &[Field]) -> Parsed<Option<u64>> {
    let mut length = None;
    for element in list(fields, "content-length") {
        let value = std::str::from_utf8(&element).map_err(|_| Stop::Invalid)?;
        let is_number = value.bytes().all(|b| b.is_ascii_digit());
        let value: u64 = value.parse().ok().filter(|_| is_number).ok_or(Stop::Invalid)?;
        if length.is_some_and(|other| other != value) {
            return Err(Stop::Invalid);
        }
        length = Some(value);
    }
    if length.is_none() && has(fields, "content-length") { Err(Stop::Invalid) } else { Ok(length) }
}

fn request_framing(fields: &[Field], is_http_10: bool) -> Parsed<Framing> {
    let length = length(fields)?;
    if !has(fields, "transfer-encoding") {
        return Ok(Framing::Length(length.unwrap_or(0)));
    }
    let is_chunked = list(fields, "transfer-encoding") == [b"chunked"];
    if is_chunked && length.is_none() && !is_http_10 { Ok(Framing::Chunked) } else { Err(Stop::Invalid) }
}

fn response_framing(fields: &[Field], is_http_10: bool) -> Parsed<Framing> {
    if has(fields, "transfer-encoding") {
        // It overrides a Content-Length.
        let is_chunked = list(fields, "transfer-encoding") == [b"chunked"];
        return if is_chunked && !is_http_10 { Ok(Framing::Chunked) } else { Err(Stop::Invalid) };
    }
    Ok(length(fields)?.map_or(Framing::UntilClose, Framing::Length))
}
