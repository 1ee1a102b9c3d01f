//! Pearson's chi-squared test of counts against the uniform distribution. Pure.

/// The result of the test.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct ChiSquared {
    /// How far the counts are from equal.
    pub(super) statistic: f64,
    /// Degrees of freedom: one less than there are counts.
    pub(super) degrees: u32,
    /// The probability that uniform random picks are at least as far from equal.
    pub(super) p: f64,
}

/// Tests whether `counts` look like uniform random picks. `None` for fewer than two counts or all zero.
pub(super) fn test_uniform(counts: &[u64]) -> Option<ChiSquared> {
    let total: u64 = counts.iter().sum();
    let degrees = u32::try_from(counts.len().checked_sub(1)?).ok().filter(|&degrees| degrees > 0)?;
    if total == 0 {
        return None;
    }
    let expected = total as f64 / counts.len() as f64;
    let statistic = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    Some(ChiSquared { statistic, degrees, p: upper_tail(statistic, degrees) })
}

/// Most steps of the series or the fraction; both converge far sooner.
const MAX_STEPS: u32 = 100_000;
/// Relative precision.
const PRECISION: f64 = 1e-14;

/// The probability that a chi-squared variable is at least `statistic`: Q(degrees/2, statistic/2), the
/// regularised upper incomplete gamma function, by its series below the peak and its continued fraction above
/// (Abramowitz and Stegun, 6.5.29 and 6.5.31).
fn upper_tail(statistic: f64, degrees: u32) -> f64 {
    let (a, x) = (f64::from(degrees) / 2.0, statistic / 2.0);
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma_of_half(degrees)).exp();
    let tail = if x < a + 1.0 { 1.0 - front * series(a, x) } else { front * fraction(a, x) };
    tail.clamp(0.0, 1.0)
}

fn series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for n in 1..MAX_STEPS {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < sum * PRECISION {
            break;
        }
    }
    sum
}

/// The continued fraction, by the modified Lentz method.
fn fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut value = d;
    for n in 1..MAX_STEPS {
        let n = f64::from(n);
        let factor = n * (a - n);
        b += 2.0;
        d = 1.0 / not_zero(b + factor * d, TINY);
        c = not_zero(b + factor / c, TINY);
        let change = c * d;
        value *= change;
        if (change - 1.0).abs() < PRECISION {
            break;
        }
    }
    value
}

fn not_zero(x: f64, tiny: f64) -> f64 {
    if x.abs() < tiny { tiny } else { x }
}

/// ln Γ(n/2), exactly by Γ(a+1) = a·Γ(a) from Γ(1/2) = √π or Γ(1) = 1.
fn ln_gamma_of_half(n: u32) -> f64 {
    let (first, base) = if n.is_multiple_of(2) { (2, 0.0) } else { (1, std::f64::consts::PI.sqrt().ln()) };
    (first..n).step_by(2).map(|k| (f64::from(k) / 2.0).ln()).fold(base, |sum, ln| sum + ln)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_critical_values() {
        // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4.
        for (statistic, degrees, p) in [
            (3.841, 1, 0.05),
            (6.635, 1, 0.01),
            (5.991, 2, 0.05),
            (13.816, 2, 0.001),
            (16.919, 9, 0.05),
            (4.168, 9, 0.90),
            (29.588, 10, 0.001),
            (124.342, 100, 0.05),
            (70.065, 100, 0.99),
        ] {
            let got = upper_tail(statistic, degrees);
            assert!((got / p - 1.0).abs() < 1e-3, "{statistic} with {degrees}: {got}, not {p}");
        }
        // Two degrees have a closed form.
        for statistic in [1e-9, 0.1, 1.0, 3.0, 5.0, 50.0, 500.0] {
            let exact = (-statistic / 2.0_f64).exp();
            assert!((upper_tail(statistic, 2) / exact - 1.0).abs() < 1e-10, "{statistic}");
        }
    }

    #[test]
    fn equal_and_lopsided_counts() {
        let equal = test_uniform(&[100, 100, 100]).unwrap();
        assert_eq!((equal.statistic, equal.degrees, equal.p), (0.0, 2, 1.0));
        let lopsided = test_uniform(&[300, 0, 0]).unwrap();
        assert_eq!(lopsided.statistic, 600.0);
        assert!(lopsided.p < 1e-100);
        for nothing in [&[][..], &[5], &[0, 0]] {
            assert_eq!(test_uniform(nothing), None);
        }
    }

    proptest! {
        #[test]
        fn the_probability_falls_as_the_statistic_grows(a in 0.0..2000.0_f64, more in 0.0..100.0_f64, degrees in 1_u32..1000) {
            let (first, second) = (upper_tail(a, degrees), upper_tail(a + more, degrees));
            prop_assert!((0.0..=1.0).contains(&first));
            prop_assert!(second <= first + 1e-9, "{} then {}", first, second);
        }
    }
}
