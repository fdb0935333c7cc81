//! What depends on the driver's version: today, how it numbers its field values.

/// Which numbers the driver has for the fields of `nvml.h`.
///
/// Driver 580.82 (CUDA 13.0 Update 1) moved 251 to 255 behind 268, and 256 to 273 five places forward, as nvml-wrapper
/// also has it. A driver that does not tell its version is taken for an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldNumbers {
    is_moved: bool,
}

impl FieldNumbers {
    pub fn of(driver: &str) -> Self {
        let mut parts = driver.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        Self { is_moved: (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (580, 82) }
    }

    /// The driver's number of a field by its number in `nvml.h` 12.
    pub const fn number(self, field: u32) -> u32 {
        match field {
            251..=255 if self.is_moved => field + 18,
            256..=273 if self.is_moved => field - 5,
            same => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(driver: &str, fields: [u32; 4], expect: [u32; 4]) {
        assert_eq!(fields.map(|field| FieldNumbers::of(driver).number(field)), expect, "{driver}");
    }

    #[test]
    fn fields_are_renumbered_from_driver_580_82_on() {
        let fields = [74, 251, 255, 256];
        for old in ["550.54.15", "570.133.20", "580.65.06", "580.81", "", "unknown"] {
            check(old, fields, fields);
        }
        for new in ["580.82.07", "580.126.09", "590.1", "610"] {
            check(new, fields, [74, 269, 273, 251]);
        }
    }
}
