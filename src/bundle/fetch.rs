//! x
use super::*;
use std::path::PathBuf;
/// x
pub struct Fetch { /// x
pub cache: PathBuf, /// x
pub release: releases::Release, /// x
pub arch: Arch, /// x
pub mirror: Option<Url>, /// x
pub only: Vec<String> }
impl Fetch { /// x
pub async fn answers(&self) -> bool { false } /// x
pub async fn run(&self, _r: &Report) -> Result<Option<Bundle>> { Ok(None) } }
