//! The catalogue in words, the same in every command. Pure.

use hubspoke_protocol::{InstanceView, ProtectionView, ReasonKind};
use jiff::Timestamp;

/// `SERVICE/ID`
pub(crate) fn name(instance: &InstanceView) -> String {
    format!("{}/{}", instance.info.name, instance.info.id())
}

/// A change and its reason, if that is known: `removed: 3 heartbeats missed`.
pub(crate) fn reason(kind: ReasonKind, detail: &str) -> String {
    if detail.is_empty() { kind.to_string() } else { format!("{kind}: {detail}") }
}

/// Whether an operator should look into it.
pub(crate) fn is_trouble(kind: ReasonKind) -> bool {
    matches!(kind, ReasonKind::MissedHeartbeat | ReasonKind::Removed | ReasonKind::HeldBack)
}

/// How long ago a time was, in the largest whole unit: `3s`, `12m`, `4h`, `2d`.
pub(crate) fn age(at: &str, now: Timestamp) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return "?".to_owned() };
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m", seconds / 60),
        3600..=86_399 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `1 instance`, `2 instances`
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Self-protection in a sentence.
pub(crate) fn protection(protection: &ProtectionView) -> String {
    let state = if protection.enabled { "on" } else { "off" };
    let removals = match protection.held_back {
        0 => "no removals are held back".to_owned(),
        1 => "1 removal is held back".to_owned(),
        n => format!("{n} removals are held back"),
    };
    let until =
        protection.until.as_ref().map(|until| format!(" until {until} at the latest")).unwrap_or_default();
    format!("self-protection is {state}; {removals}{until}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_the_largest_whole_unit() {
        let now = "2026-11-23T08:00:00Z".parse().unwrap();
        for (at, expected) in [
            ("2026-11-23T07:59:01Z", "59s"),
            ("2026-11-23T07:59:00Z", "1m"),
            ("2026-11-23T05:00:00Z", "3h"),
            ("2026-11-21T05:00:00Z", "2d"),
            ("2026-11-23T08:00:09Z", "0s"),
            ("soon", "?"),
        ] {
            assert_eq!(age(at, now), expected, "{at}");
        }
    }

    #[test]
    fn self_protection_in_a_sentence() {
        let mut view = ProtectionView { enabled: true, until: None, held_back: 0 };
        assert_eq!(protection(&view), "self-protection is on; no removals are held back");
        view.held_back = 7;
        view.until = Some("2026-11-23T08:00:00Z".to_owned());
        assert_eq!(
            protection(&view),
            "self-protection is on; 7 removals are held back until 2026-11-23T08:00:00Z at the latest"
        );
    }
}
