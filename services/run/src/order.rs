//! The order in which programs start: what is needed comes first. Pure.

use std::collections::BTreeMap;

/// A circle of needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these programs need each other: {}", .0.join(", "))]
pub(crate) struct Circle(Vec<String>);

/// The positions of the programs, each after those that it needs. Needs that are not among them are elsewhere.
pub(crate) fn by_needs(programs: &[(&str, &[String])]) -> Result<Vec<usize>, Circle> {
    let position: BTreeMap<&str, usize> =
        programs.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let mut order = Vec::new();
    let mut left: Vec<usize> = (0..programs.len()).collect();
    while !left.is_empty() {
        let is_free = |at: &usize| {
            let mut needs = programs[*at].1.iter().filter_map(|need| position.get(need.as_str()));
            needs.all(|need| order.contains(need))
        };
        let (free, waiting): (Vec<usize>, Vec<usize>) = left.iter().partition(|at| is_free(at));
        if free.is_empty() {
            return Err(Circle(waiting.iter().map(|at| programs[*at].0.to_owned()).collect()));
        }
        order.extend(free);
        left = waiting;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_come_first_and_circles_are_found() {
        let needs = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (web, api, db, none) = (needs(&["api", "log"]), needs(&["db"]), needs(&["api"]), needs(&[]));
        assert_eq!(by_needs(&[("web", &web), ("api", &api), ("db", &none)]).unwrap(), [2, 1, 0]);
        let circle = by_needs(&[("web", &web), ("api", &api), ("db", &db)]).unwrap_err();
        assert_eq!(circle.to_string(), "these programs need each other: web, api, db");
        assert_eq!(by_needs(&[]).unwrap(), [0; 0]);
    }
}
