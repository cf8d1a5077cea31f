"""The hybrid memory: rows at the start, loss and gradient, update."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.losses.cluster_contrast import cluster_contrast_loss
from crosswalk.memory.hybrid_memory import HybridMemory
from crosswalk.methods.cmmt import CMMT
from crosswalk.types import DataSpec, PairBatch
from tests.golden.harness import GRADIENT, LOSS, Case, golden


@golden("cmmt", "hybrid_memory")
def hybrid_memory(case: Case) -> None:
    memory = HybridMemory(*case["init_features"].shape).double()
    memory.fill(F.normalize(case.tensor("init_features")))
    labels = case.tensor("labels")
    if int(labels.max()) >= len(labels):  # more gaps than slots: names of classes do not matter
        labels = torch.unique(labels, return_inverse=True)[1]
    memory.relabel(labels)
    case.close("out_features_init", memory.rows, **LOSS)

    for step in range(case.item("num_steps")):
        x, slot = case.tensor(f"input_{step}", requires_grad=True), case.tensor(f"index_{step}")
        embedding = F.normalize(x)
        losses = cluster_contrast_loss(
            memory.scores(embedding), memory.labels[slot], temperature=case.item("temp")
        )
        losses.mean().backward()
        memory.update(embedding.detach(), slot, momentum=case.item("momentum"))

        case.close(f"out_loss_{step}", losses.mean(), **LOSS)
        case.close(f"out_grad_input_{step}", x.grad, **GRADIENT)
        case.close(f"out_features_{step}", memory.rows, **LOSS)


class GivenEmbeddings(nn.Module):
    """An encoder whose images and captions are their own embeddings."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size

    def embed_images(self, image: Tensor) -> Tensor:
        return image

    def embed_texts(self, tokens: Tensor, length: Tensor, longest: int) -> Tensor:
        return tokens


@golden("cmmt", "memory_init")
def memory_init(case: Case) -> None:
    image, text = case.tensor("image_features"), case.tensor("text_features")
    image_index = case.tensor("image_index")
    number = torch.arange(len(image))
    method = CMMT(
        GivenEmbeddings(image.shape[1]),
        DataSpec(num_samples=len(image), num_images=case.item("num_slots"), num_person_ids=1),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        clustering=lambda rows, threshold: (torch.full((len(rows),), -1), threshold),
        memory=HybridMemory,
        refinement=None,
    ).double()
    one = torch.ones_like(number)
    batch = PairBatch(image, text, one, 0 * one, 0 * one, number, image_index, None, None)

    method.on_sweep_end(method.sweep_step(batch))

    case.close("out_memory_image", method.memories["image"].rows, **LOSS)
    case.close("out_memory_text", method.memories["text"].rows, **LOSS)
