//! What a run has measured: named figures, as lines between processes and as people read them.

/// What came out of one store in one round: the name of a row and its figure.
#[derive(Default)]
pub struct Figures {
    pub rows: Vec<(String, f64)>,
}

impl Figures {
    pub fn add(&mut self, name: &str, value: f64) {
        self.rows.push((name.to_owned(), value));
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        let row = self.rows.iter().find(|(other, _)| other == name);
        row.map(|(_, value)| *value)
    }

    pub fn to_lines(&self) -> String {
        self.rows
            .iter()
            .map(|(name, value)| format!("{name}\t{value}\n"))
            .collect()
    }

    pub fn from_lines(lines: &str) -> Result<Self, String> {
        let row = |line: &str| {
            let (name, value) = line.split_once('\t').ok_or("a line without a figure")?;
            let value = value.parse::<f64>().map_err(|error| error.to_string())?;
            Ok((name.to_owned(), value))
        };
        Ok(Self {
            rows: lines.lines().map(row).collect::<Result<_, String>>()?,
        })
    }
}

/// In the name of a row: its figures are seconds.
pub const TAKES: &str = "takes";

/// The figures of a row in all rounds as one cell: the median, and the least and the most.
pub fn show_rounds(row: &str, mut values: Vec<f64>) -> String {
    let show = if row.contains(TAKES) {
        show_seconds
    } else {
        show
    };
    values.sort_by(f64::total_cmp);
    match &values[..] {
        [] => "–".to_owned(),
        [only] => show(*only),
        [least, .., most] => {
            let median = values[(values.len() - 1) / 2];
            format!("{} ({}–{})", show(median), show(*least), show(*most))
        }
    }
}

/// The middle one of several figures.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// A figure as people read it.
fn show(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0} k", value / 1e3)
    } else if value >= 1e3 {
        format!("{:.1} k", value / 1e3)
    } else if value >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn show_seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        1.0.. => (seconds, "s"),
        1e-3.. => (seconds * 1e3, "ms"),
        _ => (seconds * 1e6, "µs"),
    };
    if value >= 10.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}
