//! Instances of one study → the volume that is analysed, with a verdict for every series.
