//! What happens to studies on their way: each a change of one study's objects, by itself or with
//! others, of which the right end is known from what lies in the head.
//!
//! Objects are changed where they have been read: headers in memory, pixels in a file of their own.

mod scene;

use fixtures::random::mix_two;

pub use scene::Scene;
use scene::{along, later, mirror_half, uid};

/// A named change.
#[derive(Clone, Copy)]
pub struct Mishap {
    /// In snake case.
    pub name: &'static str,
    apply: fn(&mut Scene),
}

impl std::fmt::Debug for Mishap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Every mishap.
pub const ALL: &[Mishap] = &[
    // Slices go missing.
    Mishap {
        name: "one_slice_missing",
        apply: |scene| {
            let gone = scene.middle();
            scene.keep(|index| index != gone);
        },
    },
    Mishap {
        name: "every_second_slice_missing",
        apply: |scene| scene.keep(|index| index % 2 == 0),
    },
    Mishap {
        name: "two_of_three_slices_missing",
        apply: |scene| scene.keep(|index| index % 3 == 0),
    },
    Mishap {
        name: "three_of_four_slices_missing",
        apply: |scene| scene.keep(|index| index % 4 == 0),
    },
    Mishap {
        name: "a_third_missing_at_random",
        apply: |scene| {
            let seed = scene.draw(1 << 30) as u64;
            scene.keep(|index| !mix_two(seed, index as u64).is_multiple_of(3));
        },
    },
    Mishap {
        name: "vertex_missing",
        apply: |scene| {
            let count = scene.instances.len();
            scene.keep(|index| index < count * 5 / 8);
        },
    },
    Mishap {
        name: "base_missing",
        apply: |scene| {
            let count = scene.instances.len();
            scene.keep(|index| index >= count * 3 / 8);
        },
    },
    Mishap {
        name: "a_hole_of_no_whole_gaps",
        apply: |scene| {
            let (from, to) = (scene.middle(), 3 + scene.draw(5));
            let shift_mm = scene.draw(40) as f64 / 10.0;
            scene.keep(|index| index < from || index > from + to);
            scene.each_frame(|index, frame| {
                if index >= from {
                    along(frame, |z| z + shift_mm);
                }
            });
        },
    },
    // Positions and sizes are wrong.
    Mishap {
        name: "positions_in_centimetres",
        apply: |scene| {
            scene.each_frame(|_, frame| along(frame, |z| z / 10.0));
        },
    },
    Mishap {
        name: "positions_are_numbers",
        apply: |scene| {
            scene.each_frame(|index, frame| along(frame, |_| index as f64));
        },
    },
    Mishap {
        name: "positions_are_twice_as_far",
        apply: |scene| {
            scene.each_frame(|_, frame| {
                along(frame, |z| 2.0 * z);
                frame.thickness_mm = frame.thickness_mm.map(|mm| 2.0 * mm);
            });
        },
    },
    Mishap {
        name: "pixels_half_as_large",
        apply: |scene| {
            scene.each_frame(|_, frame| {
                frame.spacing_mm = frame.spacing_mm.map(|mm| mm.map(|mm| mm / 2.0));
            });
        },
    },
    Mishap {
        name: "pixels_twice_as_large",
        apply: |scene| {
            scene.each_frame(|_, frame| {
                frame.spacing_mm = frame.spacing_mm.map(|mm| mm.map(|mm| mm * 2.0));
            });
        },
    },
    Mishap {
        name: "positions_with_jitter",
        apply: |scene| {
            let seed = scene.draw(1 << 30) as u64;
            scene.each_frame(|index, frame| {
                let jitter = mix_two(seed, index as u64) % 100;
                along(frame, |z| z + jitter as f64 / 20.0);
            });
        },
    },
    Mishap {
        name: "cosines_rounded",
        apply: |scene| {
            scene.each_frame(|_, frame| {
                frame.orientation = frame
                    .orientation
                    .map(|axes| axes.map(|axis| axis.map(|part| (part * 100.0).round() / 100.0)));
            });
        },
    },
    Mishap {
        name: "some_slices_without_orientation",
        apply: |scene| {
            let from = scene.middle();
            scene.each_frame(|index, frame| {
                if (from..from + 3).contains(&index) {
                    frame.orientation = None;
                }
            });
        },
    },
    // Acquisitions.
    Mishap {
        name: "a_number_for_each_rotation",
        apply: |scene| {
            scene.each_frame(|index, frame| {
                frame.acquisition_number = i64::try_from(index / 2).ok();
            });
        },
    },
    Mishap {
        name: "a_rotation_repeated",
        apply: |scene| {
            let at = scene.middle() / 2 * 2;
            scene.each_frame(|index, frame| {
                frame.acquisition_number = i64::try_from(index / 2).ok();
            });
            for index in at..at + 2 {
                if let Some(mut again) = scene.instances.get(index).cloned() {
                    again.sop_instance_uid = uid(&format!("1.2.828.{index}"));
                    again.frames[0].acquisition_number = Some(999);
                    scene.instances.push(again);
                }
            }
        },
    },
    Mishap {
        name: "two_blocks_share_a_place",
        apply: |scene| {
            let border = scene.middle();
            scene.each_frame(|index, frame| {
                frame.acquisition_number = Some(if index <= border { 1 } else { 2 });
            });
            if let Some(mut again) = scene.instances.get(border).cloned() {
                again.sop_instance_uid = uid("1.2.829.1");
                again.frames[0].acquisition_number = Some(2);
                scene.instances.push(again);
            }
        },
    },
    Mishap {
        name: "numbers_shuffled",
        apply: |scene| {
            let seed = scene.draw(1 << 30) as u64;
            scene.each_frame(|index, frame| {
                frame.instance_number = i64::try_from(mix_two(seed, index as u64) % 1000).ok();
            });
        },
    },
    // Another scan over the same places.
    Mishap {
        name: "a_twin_that_nothing_tells_apart",
        apply: |scene| scene.add_twin(|_, _| {}),
    },
    Mishap {
        name: "a_twin_by_acquisition_number",
        apply: |scene| {
            scene.add_twin(|_, twin| twin.frames[0].acquisition_number = Some(77));
        },
    },
    Mishap {
        name: "a_twin_by_acquisition_time",
        apply: |scene| {
            scene.add_twin(|index, twin| {
                let frame = &mut twin.frames[0];
                frame.acquired = later(frame.acquired, 120.0 + index as f64);
            });
        },
    },
    Mishap {
        name: "a_twin_by_content_time",
        apply: |scene| {
            scene.add_twin(|_, twin| {
                let frame = &mut twin.frames[0];
                frame.content_made = later(frame.content_made, -300.0);
            });
        },
    },
    Mishap {
        name: "a_twin_that_is_derived",
        apply: |scene| {
            scene.add_twin(|_, twin| {
                twin.series.image_type = ["DERIVED", "SECONDARY", "AXIAL"]
                    .map(str::to_owned)
                    .to_vec();
            });
        },
    },
    Mishap {
        name: "a_twin_with_contrast",
        apply: |scene| {
            scene.add_twin(|_, twin| "IOHEXOL".clone_into(&mut twin.series.contrast_agent));
        },
    },
    Mishap {
        name: "a_twin_half_a_gap_beside",
        apply: |scene| {
            scene.add_twin(|_, twin| {
                let frame = &mut twin.frames[0];
                along(frame, |z| z + 2.5);
                frame.acquired = later(frame.acquired, 240.0);
            });
        },
    },
    Mishap {
        name: "a_twin_in_another_series",
        apply: |scene| {
            scene.add_twin(|_, twin| {
                twin.series_uid = uid("1.2.830.1");
                let frame = &mut twin.frames[0];
                frame.acquired = later(frame.acquired, 14_400.0);
            });
        },
    },
    Mishap {
        name: "part_of_a_twin",
        apply: |scene| {
            let count = scene.instances.len();
            let from = count + scene.middle() / 2;
            scene.add_twin(|_, twin| twin.frames[0].acquisition_number = Some(78));
            scene.keep(|index| index < count || (from..from + 12).contains(&index));
        },
    },
    Mishap {
        name: "another_patient_too",
        apply: |scene| {
            scene.add_twin(|_, twin| "SOMEBODY ELSE".clone_into(&mut twin.study.patient_id));
        },
    },
    // Names of objects.
    Mishap {
        name: "uids_shared_in_pairs",
        apply: |scene| {
            for pair in scene.instances.chunks_mut(2) {
                let shared = pair[0].sop_instance_uid.clone();
                for one in pair {
                    one.sop_instance_uid = shared.clone();
                }
            }
        },
    },
    Mishap {
        name: "all_came_twice_under_other_uids",
        apply: |scene| {
            let copies = scene.instances.clone();
            for (index, mut copy) in copies.into_iter().enumerate() {
                copy.sop_instance_uid = uid(&format!("1.2.831.{index}"));
                scene.instances.push(copy);
            }
        },
    },
    Mishap {
        name: "a_frame_of_reference_for_each_slice",
        apply: |scene| {
            for (index, instance) in scene.instances.iter_mut().enumerate() {
                instance.series.frame_of_reference_uid = format!("1.2.832.{index}");
            }
        },
    },
    // Pixels.
    Mishap {
        name: "a_slice_cut_short",
        apply: |scene| {
            let at = scene.middle();
            scene.change_pixels(at, |values, _| values.truncate(values.len() / 2));
        },
    },
    Mishap {
        name: "a_third_of_slices_cut_short",
        apply: |scene| {
            for index in (0..scene.instances.len()).step_by(3) {
                scene.change_pixels(index, |values, _| values.truncate(values.len() / 3));
            }
        },
    },
    Mishap {
        name: "bytes_swapped",
        apply: |scene| {
            scene.change_all_pixels(|values, _| {
                values.chunks_exact_mut(2).for_each(|word| word.swap(0, 1));
            });
        },
    },
    Mishap {
        name: "values_shifted_up",
        apply: |scene| {
            scene.change_all_pixels(|values, _| {
                for word in values.chunks_exact_mut(2) {
                    let shifted = u16::from_le_bytes([word[0], word[1]]) << 4;
                    word.copy_from_slice(&shifted.to_le_bytes());
                }
            });
        },
    },
    Mishap {
        name: "rows_drift",
        apply: |scene| {
            scene.change_all_pixels(|values, columns| {
                for (row, words) in values.chunks_exact_mut(2 * columns).enumerate() {
                    let drift = u16::try_from(row % 64).expect("small");
                    for word in words.chunks_exact_mut(2) {
                        let drifted = u16::from_le_bytes([word[0], word[1]]).wrapping_add(drift);
                        word.copy_from_slice(&drifted.to_le_bytes());
                    }
                }
            });
        },
    },
    Mishap {
        name: "one_slice_repeated_everywhere",
        apply: |scene| {
            let at = scene.middle();
            if let Some(path) = scene.instances.get(at).map(|one| one.path.clone()) {
                scene
                    .instances
                    .iter_mut()
                    .for_each(|one| one.path.clone_from(&path));
            }
        },
    },
    Mishap {
        name: "half_painted_with_brain",
        apply: |scene| scene.paint_halves(1060),
    },
    Mishap {
        name: "half_painted_with_nothing",
        apply: |scene| scene.paint_halves(0),
    },
    Mishap {
        name: "slices_of_two_scans_in_turn",
        apply: |scene| {
            let (turn, take_right) = (scene.draw(2), scene.right_half_is_quiet());
            for index in (turn..scene.instances.len()).step_by(2) {
                scene.change_pixels(index, |values, columns| {
                    mirror_half(values, columns, take_right);
                });
            }
        },
    },
    // Headers.
    Mishap {
        name: "no_rescale",
        apply: |scene| {
            scene.each_frame(|_, frame| {
                (frame.rescale_intercept, frame.rescale_slope) = (None, None);
            });
        },
    },
    Mishap {
        name: "another_intercept_on_some_slices",
        apply: |scene| {
            let from = scene.middle();
            let by_hu = if scene.draw(2) == 0 { -40.0 } else { 40.0 };
            scene.each_frame(|index, frame| {
                if (from..from + 8).contains(&index) {
                    frame.rescale_intercept = frame.rescale_intercept.map(|hu| hu + by_hu);
                }
            });
        },
    },
    Mishap {
        name: "signed_that_are_not",
        apply: |scene| {
            for instance in &mut scene.instances {
                if let Some(pixels) = &mut instance.pixels {
                    (pixels.signed, pixels.bits_stored) = (true, 12);
                }
            }
        },
    },
    Mishap {
        name: "no_kernel_and_no_description",
        apply: |scene| {
            for instance in &mut scene.instances {
                instance.series.kernel.clear();
                instance.series.series_description.clear();
                instance
                    .frames
                    .iter_mut()
                    .for_each(|frame| frame.kernel.clear());
            }
        },
    },
    Mishap {
        name: "no_image_type",
        apply: |scene| {
            scene
                .instances
                .iter_mut()
                .for_each(|one| one.series.image_type.clear());
        },
    },
    Mishap {
        name: "no_times_and_numbers",
        apply: |scene| {
            scene.each_frame(|_, frame| {
                (frame.acquired, frame.content_made) = (None, None);
                (frame.acquisition_number, frame.instance_number) = (None, None);
            });
        },
    },
    Mishap {
        name: "a_child",
        apply: |scene| {
            scene
                .instances
                .iter_mut()
                .for_each(|one| "004Y".clone_into(&mut one.study.patient_age));
        },
    },
    Mishap {
        name: "order_of_arrival_reversed",
        apply: |scene| scene.instances.reverse(),
    },
];
