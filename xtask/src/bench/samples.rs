//! The figures that the probe took.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// One figure.
#[derive(Debug, Deserialize)]
struct Sample {
    what: String,
    value: f64,
}

/// All figures of a job.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Samples(Vec<Sample>);

impl Samples {
    /// Reads what the probe wrote into that folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let text = fs::read(folder.join("samples.json")).context("the probe wrote no figures")?;
        serde_json::from_slice(&text).context("the probe's figures cannot be read")
    }

    /// The median of all figures of that name.
    pub(super) fn median(&self, what: &str) -> Result<f64> {
        let named = self.0.iter().filter(|sample| sample.what == what);
        let mut values: Vec<f64> = named.map(|sample| sample.value).collect();
        median(&mut values).with_context(|| format!("the probe took no figure named `{what}`"))
    }
}

/// Those of several jobs together.
impl FromIterator<Self> for Samples {
    fn from_iter<T: IntoIterator<Item = Self>>(jobs: T) -> Self {
        Self(jobs.into_iter().flat_map(|samples| samples.0).collect())
    }
}

/// The median, if there is any value. It sorts them.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_of_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"[{"what":"a","value":3},{"what":"b","value":9},{"what":"a","value":1.5},{"what":"a","value":2}]"#;
        fs::write(folder.path().join("samples.json"), text).unwrap();
        let samples = Samples::read(folder.path()).unwrap();
        assert_eq!(samples.median("a").unwrap(), 2.0);
        assert_eq!(samples.median("b").unwrap(), 9.0);
        assert!(samples.median("c").is_err());
    }

    #[test]
    fn probe_that_wrote_nothing_is_an_error() {
        assert!(Samples::read(tempfile::tempdir().unwrap().path()).is_err());
    }
}
