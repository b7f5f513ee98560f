//! `kup config` as users type it: whole messages and exit codes, by the real program.

#[test]
fn messages_are_as_written_down() {
    let cases = trycmd::TestCases::new();
    // What the person who runs the tests has set must not count.
    for variable in ["KUP_FILE", "KUP_NAME", "KUP_PROVIDER", "KUP_KUBERNETES_VERSION", "KUP_MASTERS", "KUP_MINIONS", "KUP_ENGINE", "NUM_NODES", "NUM_MINIONS"] {
        cases.env(variable, "");
    }
    cases.case("tests/cli/config/*.trycmd");
}
