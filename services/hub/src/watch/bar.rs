//! Bars and sparklines of block characters. Pure.

/// Eighths of a block, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar, `width` columns wide, for an instance's share of its service's requests. The middle of it, which is
/// marked, is the even share, `expected`, so the scale does not depend on the number of instances.
pub(super) fn share(share: f64, expected: f64, width: usize) -> String {
    let scale = (2.0 * expected).clamp(f64::MIN_POSITIVE, 1.0);
    let eighths = (share / scale * width as f64 * 8.0).round().clamp(0.0, width as f64 * 8.0) as usize;
    // A single instance has no even share.
    let mark = (expected < 1.0).then(|| (expected / scale * width as f64).round() as usize);
    let cell = |column: usize| match eighths.saturating_sub(column * 8) {
        0 if Some(column) == mark => '┊',
        0 => ' ',
        n if n >= 8 && Some(column) == mark => '▓',
        n if n >= 8 => '█',
        n => EIGHTHS[n - 1],
    };
    (0..width).map(cell).collect()
}

/// The last `width` values, the newest at the right, on a scale up to the greatest of them.
pub(super) fn spark(values: impl DoubleEndedIterator<Item = f64>, width: usize) -> String {
    let mut last: Vec<f64> = values.rev().take(width).collect();
    last.reverse();
    let most = last.iter().copied().fold(0.0, f64::max);
    let level = |value: f64| {
        if value <= 0.0 { ' ' } else { LEVELS[((value / most * 8.0).ceil() as usize).clamp(1, 8) - 1] }
    };
    let line: String = last.into_iter().map(level).collect();
    format!("{line:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_share_fills_the_bar_to_its_mark() {
        let third = 1.0 / 3.0;
        assert_eq!(share(third, third, 10), "█████┊    ");
        assert_eq!(share(0.0, third, 10), "     ┊    ");
        assert_eq!(share(1.0, third, 10), "█████▓████");
        assert_eq!(share(0.4, third, 10), "█████▓    ");
        assert_eq!(share(third / 2.0, third, 10), "██▌  ┊    ");
        assert_eq!(share(1.0, 1.0, 4), "████");
        assert_eq!(share(0.5, 0.5, 0), "");
    }

    #[test]
    fn a_sparkline_is_scaled_to_its_greatest_value() {
        assert_eq!(spark([0.0, 1.0, 4.0, 8.0].into_iter(), 6), "   ▁▄█");
        assert_eq!(spark([9.0, 1.0, 1.0].into_iter(), 2), "██");
        assert_eq!(spark([0.0, 0.0].into_iter(), 3), "   ");
    }
}
