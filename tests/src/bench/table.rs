//! The figures of a benchmark, as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The median over all repeats.
    pub value: f64,
    /// Of the value.
    pub unit: &'static str,
    /// The row it is compared with, and the ratio to it.
    pub ratio: Option<(String, f64)>,
}

/// Something to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// What is to be reached.
    pub name: String,
    /// What was measured.
    pub value: f64,
    /// What it is measured against.
    pub limit: f64,
    /// Whether it was reached.
    pub ok: bool,
}

/// All figures of one benchmark.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The benchmark.
    pub name: &'static str,
    /// Its figures.
    pub rows: Vec<Row>,
    /// Its goals.
    pub goals: Vec<Goal>,
}

impl Table {
    /// Adds a figure.
    pub fn row(&mut self, name: &str, value: f64, unit: &'static str, ratio: Option<(&str, f64)>) {
        let ratio = ratio.map(|(to, ratio)| (to.to_owned(), ratio));
        self.rows.push(Row { name: name.to_owned(), value, unit, ratio });
    }

    /// Adds a goal that is reached by at least (`at_least`) or at most the limit.
    pub fn goal(&mut self, name: &str, value: f64, limit: f64, at_least: bool) {
        let ok = if at_least { value >= limit } else { value <= limit };
        self.goals.push(Goal { name: name.to_owned(), value, limit, ok });
    }

    /// The table as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width =
            self.rows.iter().map(|row| row.name.len()).chain(self.goals.iter().map(|goal| goal.name.len()));
        let width = width.max().unwrap_or_default();
        for row in &self.rows {
            let ratio =
                row.ratio.as_ref().map_or_else(String::new, |(to, ratio)| format!("   {ratio:.2} x {to}"));
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:<width$}  {:>12.3} {:<10}{ratio}", row.name, row.value, row.unit);
        }
        if !self.goals.is_empty() {
            let _ = writeln!(text, "\ngoals");
        }
        for goal in &self.goals {
            let mark = if goal.ok { "ok" } else { "not ok" };
            let _ = writeln!(
                text,
                "{:<width$}  {:>12.3} against {:<10.3} {mark}",
                goal.name, goal.value, goal.limit
            );
        }
        text
    }

    /// The table as JSON, with what [`machine`] said before anything was measured.
    #[must_use]
    pub fn json(&self, machine: &str) -> Value {
        let row = |row: &Row| {
            let mut value = json!({ "name": row.name, "value": row.value, "unit": row.unit });
            if let (Some((to, ratio)), Some(fields)) = (&row.ratio, value.as_object_mut()) {
                fields.insert("ratio_to".to_owned(), json!(to));
                fields.insert("ratio".to_owned(), json!(ratio));
            }
            value
        };
        let goal = |goal: &Goal| json!({ "name": goal.name, "value": goal.value, "limit": goal.limit, "ok": goal.ok });
        json!({
            "name": self.name,
            "machine": machine,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "goals": self.goals.iter().map(goal).collect::<Vec<_>>(),
        })
    }
}

/// The machine in one line: CPUs, model, kernel, and how busy it is, for figures of a busy one are not to be trusted.
#[must_use]
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown model", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    format!("{cpus} CPUs, {model}, Linux {}, load {load}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_on_the_limit_and_beyond_it() {
        let mut table = Table { name: "x", ..Table::default() };
        for (value, at_least, ok) in
            [(1.0, true, true), (0.9, true, false), (1.0, false, true), (1.1, false, false)]
        {
            table.goal("g", value, 1.0, at_least);
            assert_eq!(table.goals.last().map(|goal| goal.ok), Some(ok), "{value} {at_least}");
        }
        table.row("r", 2.0, "us", Some(("off", 1.5)));
        let json = table.json("a machine");
        assert_eq!(json.pointer("/rows/0/ratio"), Some(&json!(1.5)));
        assert_eq!(json.pointer("/goals/1/ok"), Some(&json!(false)));
        assert!(table.text().contains("not ok"));
    }
}
