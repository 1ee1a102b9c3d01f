//! Plain text tables. Pure.

/// Lays out `rows` below `header`. Every row has as many cells as the header.
pub(crate) fn layout(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["log".to_owned(), "127.0.0.1:20002".to_owned()], vec!["visits".to_owned(), "x".to_owned()]];
        let text = layout(&["NAME", "ADDRESS"], &rows);
        assert_eq!(text, "NAME    ADDRESS\nlog     127.0.0.1:20002\nvisits  x\n");
    }
}
