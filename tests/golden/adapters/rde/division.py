"""Confident consensus division and its threshold rule."""

from crosswalk.labels.consensus_division import (
    clean_probability,
    divide,
    min_max_normalised,
    predict_clean,
    resolve_votes,
)
from tests.golden.harness import Case, golden

SEED = 1  # recorded cases do not depend on the seed of the mixture fit


@golden("rde", "ccd")
def ccd(case: Case) -> None:
    settings = {name: case.item(name) for name in ("max_iter", "tol", "reg_covar")}
    case.unused("noisy_rate", "dataset_name", reason="they chose the three settings")
    losses = {head: case.tensor(f"loss_{head}") for head in ("bge", "tse")}

    votes = 0
    for head, loss in losses.items():
        normalised = min_max_normalised(loss)
        probability = clean_probability(normalised, seed=SEED, **settings)
        prediction = predict_clean(probability)
        votes = votes + prediction.long()
        case.equal(f"out_norm_{head}", normalised)
        case.close(f"out_prob_clean_{head}", probability, rtol=0.0, atol=5e-3)
        case.equal(f"out_pred_{head}", prediction)
    case.equal("out_vote_sum", votes)
    for suffix in ("", "_2"):
        clean = resolve_votes(votes, case.tensor(f"uncertain_draw{suffix}"), num_views=2)
        case.equal(f"out_label_hat{suffix}", clean)

    division = divide(*losses.values(), seed=SEED, **settings)
    case.equal("out_vote_sum", division.votes)
    sure = votes != 1
    case.check(
        bool((division.clean[sure] == case.tensor("out_label_hat")[sure]).all()),
        "divide agrees where no coin is tossed",
    )


@golden("rde", "split_prob")
def split_prob(case: Case) -> None:
    case.equal("out_pred", predict_clean(case.tensor("prob"), threshold=case.item("threshold")))
