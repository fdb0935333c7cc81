use super::Series;

pub const ROWS: &[&Series] = &[];
