# Short names for the commands of CONTRIBUTING.md. Nothing needs `just`: each line works by itself as well.

# Lists what there is.
default:
    @just --list

# Checks that end within two minutes when everything is built.
quick:
    tests/run.sh quick

# All checks and tests; installs what is missing.
test:
    tests/run.sh

# Formats all Rust code.
fmt:
    cargo fmt --all

# One fault scenario in its long form: just faults redis-kills --seed 7
faults NAME *ARGS:
    cargo test --locked --release --test faults -- {{NAME}} --full {{ARGS}}

# Attackers beside honest clients: just abuse --full
abuse *ARGS:
    cargo test --locked --profile cost --test abuse -- {{ARGS}}

# Measures beside the opponents: just bench --quick
bench *ARGS:
    benches/run.sh {{ARGS}}

# One black-box suite against the debug build: just js running
js NAME:
    cargo build --locked
    cd tests/js && JOBCAST_BIN=../../target/debug/jobcast node --test {{NAME}}.test.mjs

# Serves a gateway that keeps nothing, with the dashboard at http://127.0.0.1:3000.
serve *ARGS:
    JOBCAST_STORE__PATH=:memory: cargo run -- serve {{ARGS}}
