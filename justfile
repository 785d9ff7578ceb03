# What a developer does here. `.ci/run` has the commands themselves, and needs no `just`.

# Lists the recipes.
default:
    @just --list --unsorted

# Formats everything.
fmt:
    cargo fmt --all
    cargo fmt --manifest-path fuzz/Cargo.toml

# Clippy, every warning an error.
lint:
    .ci/run lint

# Workers, actors and drivers killed while they work; minutes.
faults KILLS="2000" DRIVER_KILLS="200":
    MOBULA_KILLS={{ KILLS }} MOBULA_DRIVER_KILLS={{ DRIVER_KILLS }} \
        cargo test -p mobula-tests --test faults_runtime -- --nocapture

# The documentation, every warning an error.
doc:
    .ci/run doc

# All tests.
test:
    .ci/run test

# The Python package: built and installed, its types, its style, its tests.
python:
    .ci/run python

# The examples, each of which checks its own results.
check:
    .ci/run check

# Measures; `just bench --bench objects -- put` only what is called so.
bench *ARGUMENTS:
    cargo bench -p mobula-benches {{ ARGUMENTS }}

# Mobula beside its rivals and the machine's limits, into docs/performance.md; `--only put --quick` measures a part.
compare *ARGUMENTS:
    cargo run --release -p mobula-compare -- {{ ARGUMENTS }}

# Prints the times of commands after a million calls; checks that memory is flat while SECONDS of calls are recorded.
large SECONDS="600":
    MOBULA_SECONDS={{ SECONDS }} cargo test --release -p mobula-cli --test large -- \
        --ignored --nocapture --test-threads 1

# Processes killed, stopped and spoilt on purpose: `just chaos 600`, `just chaos 600 SEED` to replay one, some by name.
chaos SECONDS="30" SEED="" *ARGUMENTS="":
    cargo run --release -p mobula-chaos -- --seconds {{ SECONDS }} \
        {{ if SEED == "" { "" } else { "--seed " + SEED } }} {{ ARGUMENTS }}

# Fuzzes every decoder of bytes from other processes, a minute each; `just fuzz 600 operations`: one of them, longer.
fuzz SECONDS="60" TARGETS="":
    MOBULA_FETCH=1 MOBULA_FUZZ_SECONDS={{ SECONDS }} MOBULA_FUZZ={{ quote(TARGETS) }} .ci/run fuzz

# What Ray's own package gives for the programs of python/tests/differential: `just record /tmp/ray/bin/python tasks`.
record PYTHON *AREAS:
    {{ PYTHON }} python/tests/differential/record {{ AREAS }}

# The lock-free parts under a model checker: every order of their steps, with as many preemptions as given.
loom PREEMPTIONS="3":
    LOOM_MAX_PREEMPTIONS={{ PREEMPTIONS }} .ci/run loom

# The crates below the runtime under AddressSanitizer and ThreadSanitizer, the Python package under AddressSanitizer.
sanitize:
    .ci/run address python_address thread

# What touches no shared memory under Miri, where a nightly toolchain has it.
miri:
    .ci/run miri

# The pictures of docs/how-it-works.md, from the Mermaid text in it; needs npx and a Chromium.
pictures:
    docs/pictures

# How many lines of shm, protocol, store and client the tests run, and which they do not.
coverage:
    MOBULA_FETCH=1 .ci/run coverage

# Licences, advisories and versions of the dependencies.
deny:
    MOBULA_FETCH=1 .ci/run deny

# What would be published.
package:
    .ci/run package

# The wheel for Python, for every Linux with glibc 2.28 or later, into target/wheel.
wheel:
    .ci/run wheel

# Whether the published crates fit their versions; `just semver COMMIT`: since a commit. Needs cargo-semver-checks.
semver RELEASED="":
    MOBULA_RELEASED={{ quote(RELEASED) }} .ci/run semver

# Everything that a change must pass.
ci:
    .ci/run
