//! Columns that line up: the first to the left, the others to the right.

/// A table under construction.
#[derive(Debug)]
pub(super) struct Table {
    widths: Vec<usize>,
    rows: Vec<(Vec<String>, Vec<String>)>,
}

impl Table {
    /// A table with its headings.
    pub(super) fn new(head: &[&str]) -> Table {
        let mut table = Table { widths: vec![0; head.len()], rows: Vec::new() };
        table.row(head.iter().map(|cell| (*cell).to_owned()).collect(), str::to_owned);
        table
    }

    /// Adds a row; its last cell is written through `decorate`, which may add what has no width.
    pub(super) fn row(&mut self, cells: Vec<String>, decorate: impl Fn(&str) -> String) {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        let mut written = cells.clone();
        if let Some(last) = written.last_mut() {
            *last = decorate(last);
        }
        self.rows.push((cells, written));
    }

    /// The table as lines.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        for (cells, written) in &self.rows {
            let mut line = String::new();
            for (position, ((cell, text), width)) in cells.iter().zip(written).zip(&self.widths).enumerate() {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                if position == 0 {
                    line.push_str(text);
                    line.push_str(&padding);
                } else {
                    line.push_str("  ");
                    line.push_str(&padding);
                    line.push_str(text);
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}
