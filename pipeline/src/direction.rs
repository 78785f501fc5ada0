//! Direction cosines (PS3.3 C.7.6.2.1.1) → unit vectors at right angles.

/// How far written cosines may be from unit length and from a right angle. Rounding to two decimals
/// makes 0.012 at most.
const INEXACT_MAX: f64 = 0.05;

/// The directions of a slice in patient space: unit vectors at right angles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Directions {
    /// Along a row.
    pub(crate) row: [f64; 3],
    /// Down a column.
    pub(crate) column: [f64; 3],
    /// Across the slice: row × column.
    pub(crate) normal: [f64; 3],
    /// How far the cosines as written were from unit length or from a right angle.
    pub(crate) inexact: f64,
}

impl Directions {
    /// Of Image Orientation (Patient) (0020,0037) as written; `None` if it is too far from two unit
    /// vectors at a right angle to say which way a slice lies.
    pub(crate) fn of([row, column]: [[f64; 3]; 2]) -> Option<Self> {
        let off_unit = |direction: &[f64; 3]| (dot(direction, direction).sqrt() - 1.0).abs();
        let inexact = off_unit(&row)
            .max(off_unit(&column))
            .max(dot(&row, &column).abs());
        // `max` passes over a NaN, so each component is asked.
        let finite = row.iter().chain(&column).all(|part| part.is_finite());
        if !finite || inexact > INEXACT_MAX {
            return None;
        }
        let row = unit(row);
        let normal = unit(cross(&row, &column));
        Some(Self {
            row,
            column: cross(&normal, &row),
            normal,
            inexact,
        })
    }

    /// Largest angle between rows or columns of two slices, degrees.
    pub(crate) fn angle_deg(&self, other: &Self) -> f64 {
        angle_deg(&self.row, &other.row).max(angle_deg(&self.column, &other.column))
    }
}

/// Scalar product.
pub(crate) fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Vector product.
fn cross(a: &[f64; 3], b: &[f64; 3]) -> [f64; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

fn unit(direction: [f64; 3]) -> [f64; 3] {
    let length = dot(&direction, &direction).sqrt();
    direction.map(|component| component / length)
}

fn angle_deg(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    // The sine is exact for small angles, where the cosine is not.
    let perpendicular = cross(a, b);
    dot(&perpendicular, &perpendicular)
        .sqrt()
        .atan2(dot(a, b))
        .to_degrees()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turned(turn: f64, tilt: f64) -> [[f64; 3]; 2] {
        let ((sin, cos), (sin_tilt, cos_tilt)) = (turn.sin_cos(), tilt.sin_cos());
        [
            [cos, sin, 0.0],
            [-sin * cos_tilt, cos * cos_tilt, -sin_tilt],
        ]
    }

    proptest! {
        #[test]
        fn cosines_rounded_to_two_or_three_decimals_are_read_and_lie_near_the_truth(
            turn in -3.0_f64..3.0,
            tilt in -0.6_f64..0.6,
            scale in prop_oneof![Just(100.0), Just(1000.0)],
        ) {
            let exact = turned(turn, tilt);
            let rounded = exact.map(|axis| axis.map(|part| (part * scale).round() / scale));
            let (exact, read) = (Directions::of(exact).unwrap(), Directions::of(rounded).unwrap());
            prop_assert!(exact.angle_deg(&read) < 60.0 / scale, "{}", exact.angle_deg(&read));
            prop_assert!(read.angle_deg(&read) < 1e-6);
            prop_assert!(read.inexact < 1.3 / scale);
            for axis in [read.row, read.column, read.normal] {
                prop_assert!((dot(&axis, &axis) - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn what_is_no_direction_is_refused() {
        let axial = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        assert_eq!(Directions::of(axial).map(|found| found.inexact), Some(0.0));
        for (index, value) in [
            (0, f64::NAN),
            (0, 0.9),
            (0, 1.1),
            (1, f64::INFINITY),
            (1, 0.1),
        ] {
            let mut broken = axial;
            broken[0][index] = value;
            assert_eq!(Directions::of(broken), None, "{value}");
        }
        assert_eq!(Directions::of([[0.0; 3]; 2]), None);
    }
}
