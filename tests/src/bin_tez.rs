//! The `tez` command, built again here so that these tests always run the code beside them.
//!
//! `TEST_PLANTED` plants faults in its workers: `hang=UID` and `abort=UID`, with a comma between
//! them, are studies whose analysis never ends, or takes its process down.

use models::analysis::StudyObjects;
use models::report::ModelIdentity;
use pipeline::decode::Decoding;
use pipeline::reason::Reason;
use server::clock::Clock;
use server::worker::{Analyse, Answer, Inference, run_with};

fn main() -> std::process::ExitCode {
    #[expect(
        clippy::disallowed_methods,
        reason = "faults are planted by the environment"
    )]
    let planted = std::env::var("TEST_PLANTED");
    if let (Ok(faults), Some("worker")) = (planted, std::env::args().nth(1).as_deref()) {
        let worked = run_with(&|settings| {
            Box::new(Planted {
                inference: Inference::new(settings.model.clone(), Clock::system()),
                faults: faults.clone(),
            })
        });
        return std::process::ExitCode::from(u8::from(worked.is_err()));
    }
    server::cli::run()
}

struct Planted {
    inference: Inference,
    faults: String,
}

impl Analyse for Planted {
    fn analyse(&mut self, study: StudyObjects<'_>, decoding: Decoding<'_>) -> Answer {
        for fault in self.faults.split(',') {
            if fault == format!("abort={}", study.study_uid) {
                std::process::abort();
            }
            while fault == format!("hang={}", study.study_uid) {
                std::thread::park();
            }
        }
        self.inference.analyse(study, decoding)
    }

    fn model(&self) -> Result<ModelIdentity, Reason> {
        self.inference.model()
    }
}
