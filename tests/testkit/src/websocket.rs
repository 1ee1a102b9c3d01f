//! WebSocket frames (RFC 6455) as bytes, and exchanges in the manner of the Autobahn test suite: valid and invalid ones,
//! since whoever passes them on must not care.

/// Opcodes (RFC 6455, 5.2).
#[allow(missing_docs, reason = "the names are the RFC's")]
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}
use opcode::*;

/// The fields of a request that opens a WebSocket, with the key of RFC 6455, 1.3.
pub const OPENING: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The response that accepts it.
pub const ACCEPTING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The first byte of a frame is `FIN`, reserved bits and opcode. A client masks, a server does not.
pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut bytes = vec![first];
    let mask_bit = if masked { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => bytes.push(u8::try_from(short).unwrap() | mask_bit),
        medium @ 126..=65_535 => {
            bytes.push(126 | mask_bit);
            bytes.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(127 | mask_bit);
            bytes.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    if masked {
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// What one side sends, by the numbers of Autobahn's chapters.
pub fn exchanges(masked: bool) -> Vec<(String, Vec<u8>)> {
    let whole = |opcode: u8, payload: &[u8]| frame(FIN | opcode, payload, masked);
    let part = |opcode: u8, payload: &[u8]| frame(opcode, payload, masked);
    let close = |code: u16, reason: &str| whole(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat());
    let mut all = Vec::new();
    let mut add = |name: String, frames: &[Vec<u8>]| all.push((name, frames.concat()));
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
        add(format!("1.1 text of {size} bytes"), &[whole(TEXT, &vec![b'*'; size])]);
        add(format!("1.2 binary of {size} bytes"), &[whole(BINARY, &vec![0xfe; size])]);
    }
    add("2.2 ping with a payload".into(), &[whole(PING, b"Hello, world!")]);
    add("2.4 ping with the longest payload".into(), &[whole(PING, &[0xfe; 125])]);
    add("2.5 ping that is too long".into(), &[whole(PING, &[0xfe; 126])]);
    add("2.7 pong without a ping".into(), &[whole(PONG, b""), whole(PING, b"x")]);
    add("2.10 ten pings".into(), &vec![whole(PING, b"payload"); 10]);
    for reserved in 1..8_u8 {
        add(format!("3 reserved bits {reserved}"), &[frame(FIN | reserved << 4 | TEXT, b"x", masked)]);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        add(format!("4 reserved opcode {opcode}"), &[whole(opcode, b"x"), whole(PING, b"")]);
    }
    add("5.1 ping in fragments".into(), &[part(PING, b"a"), whole(CONTINUATION, b"b")]);
    add("5.3 text in two fragments".into(), &[part(TEXT, b"fragment1"), whole(CONTINUATION, b"fragment2")]);
    add(
        "5.6 a ping between fragments".into(),
        &[part(TEXT, b"fragment1"), whole(PING, b"ping"), whole(CONTINUATION, b"fragment2")],
    );
    add("5.9 a continuation of nothing".into(), &[whole(CONTINUATION, b"x"), whole(TEXT, b"y")]);
    add("5.18 two texts at once".into(), &[part(TEXT, b"fragment1"), whole(TEXT, b"fragment2")]);
    add(
        "5.20 empty fragments".into(),
        &[part(TEXT, b""), part(CONTINUATION, b""), whole(PING, b""), whole(CONTINUATION, b"")],
    );
    let greek = "κόσμε";
    add(
        "6.2 a character cut in two".into(),
        &[part(TEXT, &greek.as_bytes()[..1]), whole(CONTINUATION, &greek.as_bytes()[1..])],
    );
    for invalid in
        [&b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..], b"\xff", b"\xc0\x80"]
    {
        add("6.3 invalid UTF-8".into(), &[whole(TEXT, invalid)]);
    }
    add("7.1 a message after the close".into(), &[close(1000, ""), whole(TEXT, b"late")]);
    add("7.3 close without a code".into(), &[whole(CLOSE, b"")]);
    add("7.3 close with half a code".into(), &[whole(CLOSE, b"\x03")]);
    add("7.3 close with the longest reason".into(), &[close(1000, &"*".repeat(123))]);
    add("7.3 close with a reason that is too long".into(), &[close(1000, &"*".repeat(124))]);
    add("7.5 close with invalid UTF-8".into(), &[whole(CLOSE, b"\x03\xe8\xce\xba\xff")]);
    for code in [
        0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1016, 2999, 3000, 3999, 4000, 4999,
        5000, 65_535,
    ] {
        add(format!("7 close with code {code}"), &[close(code, "bye")]);
    }
    add("9.2 a message of 4 MiB".into(), &[whole(BINARY, &pattern(4 << 20))]);
    let message = pattern(1 << 20);
    let mut fragments: Vec<Vec<u8>> = message.chunks(1000).map(|data| part(CONTINUATION, data)).collect();
    fragments[0] = part(BINARY, &message[..1000]);
    fragments.push(whole(CONTINUATION, b""));
    add("9.4 a message of 1 MiB in fragments of 1,000 bytes".into(), &fragments);
    add("9.7 1,000 small messages".into(), &vec![whole(TEXT, &[b'*'; 64]); 1000]);
    all
}

/// Bytes in which a lost or doubled piece shows.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_rfc() {
        assert_eq!(frame(FIN | TEXT, b"Hello", false), b"\x81\x05Hello"); // RFC 6455, 5.7
        assert_eq!(frame(FIN | TEXT, b"Hello", true), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(frame(FIN | BINARY, &[0; 256], false)[..4], [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(frame(FIN | BINARY, &[0; 65_536], false)[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
