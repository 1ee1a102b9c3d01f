//! As much of HPACK (RFC 7541) as the tests need: literal fields out, a status in.

/// A header block of literal fields, not indexed and not in Huffman code.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

/// One such field.
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    [&bytes[..], text].concat()
}

/// The status at the beginning of a response's header block; there must be no dynamic table.
pub(super) fn status(block: &[u8]) -> Option<u16> {
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20)?; // after changes of the table's size
    let block = &block[at..];
    match block {
        [indexed @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]),
        [0x08 | 0x18 | 0x48, length, text @ ..] => {
            let text = text.get(..usize::from(length & 0x7f))?;
            let digits = if length & 0x80 == 0 { text.to_vec() } else { digits(text) };
            std::str::from_utf8(&digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Digits in Huffman code (RFC 7541, appendix B): three have 5 bits, the others 6.
fn digits(code: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number * 2 + bit);
    let (mut digits, mut rest) = (Vec::new(), &bits[..]);
    while rest.len() >= 5 {
        let digit = match number(&rest[..5]) {
            short @ 0..=2 => {
                rest = &rest[5..];
                short
            }
            _ if rest.len() >= 6 && (0x19..=0x1f).contains(&number(&rest[..6])) => {
                let long = number(&rest[..6]) - 0x19 + 3;
                rest = &rest[6..];
                long
            }
            _ => break, // padding
        };
        digits.push(b'0' + digit);
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_every_form() {
        assert_eq!(status(&[0x20, 0x8d]), Some(404));
        assert_eq!(status(&[0x08, 3, b'4', b'3', b'1', 0x88]), Some(431));
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302)); // RFC 7541, C.6.1
        assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307)); // RFC 7541, C.6.2
    }

    #[test]
    fn a_long_string_has_a_length_of_several_bytes() {
        assert_eq!(string(&[b'x'; 1337 + 97])[..3], [127, 0x9b, 0x0a]);
    }
}
