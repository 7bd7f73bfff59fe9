use super::arguments::{Doctor, Shared};
use super::{Answer, Outcome};

pub(super) fn doctor(_options: &Doctor, _shared: &Shared) -> Outcome {
    Ok(Answer::Yes)
}
