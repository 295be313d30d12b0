"""Augmented views of images for losses of pairs, as tensor operations on a whole batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.runtime import to_device

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)  # of the crop: share of the area, width to height
ATTEMPTS = 10  # draws of a crop that must lie inside the image, before the middle is taken
JITTER, HUE = 0.4, 0.1  # brightness, contrast, saturation; hue
JITTERED, GREY = 0.8, 0.2  # shares of the images
LUMA = (0.2989, 0.587, 0.114)  # of R, G, B in a grey value


def random_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (B,H,W,3) -> float32 (B,3,H,W) in 0..1, one random view of each image.

    Equal in distribution to torchvision's RandomResizedCrop(H, scale=(0.2, 1)),
    RandomHorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1) with probability 0.8 and
    RandomGrayscale(0.2) on float images ([ReweightOOD]). The random numbers come from the CPU
    generator, so that a seed draws the same on every device.
    """
    count, height, width, _ = images.shape
    boxes = crop_boxes(count, height, width, generator)
    flip = torch.rand(count, generator=generator) < 0.5
    jittered = torch.rand(count, generator=generator) < JITTERED
    grey = torch.rand(count, generator=generator) < GREY
    factors = 1 + JITTER * (2 * torch.rand(3, count, generator=generator) - 1)
    shift = HUE * (2 * torch.rand(count, generator=generator) - 1)
    order = torch.rand(count, 4, generator=generator).argsort(dim=1)
    device = images.device
    pixels = images.permute(0, 3, 1, 2).float() / 255
    pixels = resized_crop(pixels, to_device(boxes, device), to_device(flip, device))
    pixels = color_jitter(pixels, factors, shift, order, jittered)
    chosen = to_device(grey.nonzero().flatten(), device)
    return pixels.index_copy_(0, chosen, luma(pixels[chosen]).expand(-1, 3, -1, -1))


def crop_boxes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """(B,4) float32 top, left, height, width of each image's crop, whole pixels.

    The area's share is uniform, the logarithm of the ratio too; the first of ten draws that fits
    counts, else the largest middle part whose ratio is allowed.
    """
    area = torch.empty(count, ATTEMPTS).uniform_(*SCALE, generator=generator) * height * width
    low, high = map(math.log, RATIO)
    ratio = torch.empty(count, ATTEMPTS).uniform_(low, high, generator=generator).exp()
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.float().argmax(dim=1, keepdim=True)
    w, h = w.gather(1, first).flatten(), h.gather(1, first).flatten()
    whole = width / height
    middle_w = width if whole <= RATIO[1] else round(height * RATIO[1])
    middle_h = height if whole >= RATIO[0] else round(width / RATIO[0])
    u = torch.rand(2, count, generator=generator)
    top, left = (u[0] * (height - h + 1)).floor(), (u[1] * (width - w + 1)).floor()
    none = ~fits.any(dim=1)
    h, w = h.masked_fill(none, middle_h), w.masked_fill(none, middle_w)
    top = top.masked_fill(none, (height - middle_h) // 2)
    left = left.masked_fill(none, (width - middle_w) // 2)
    return torch.stack([top, left, h, w], dim=1)


def resized_crop(pixels: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Each image (B,3,H,W) cropped to its box (B,4) and enlarged to H x W, bilinear; mirrored where
    ``flip`` (B,) says so. A crop is never shrunk, so there is nothing to antialias.
    """
    _, _, height, width = pixels.shape
    top, left, h, w = boxes.T[:, :, None]
    rows = torch.arange(height, device=pixels.device)
    columns = torch.arange(width, device=pixels.device)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    # beyond the crop's outermost pixels its edge goes on
    y = ((rows + 0.5) * h / height - 0.5).clamp_min(0).minimum(h - 1) + top
    x = ((columns + 0.5) * w / width - 0.5).clamp_min(0).minimum(w - 1) + left
    y, x = 2 * y / max(height - 1, 1) - 1, 2 * x / max(width - 1, 1) - 1
    where = torch.stack(
        [x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3
    )
    return F.grid_sample(pixels, where, mode="bilinear", align_corners=True)


def color_jitter(
    pixels: Tensor, factors: Tensor, shift: Tensor, order: Tensor, jittered: Tensor
) -> Tensor:
    """Brightness, contrast and saturation by ``factors`` (3,B) and hue by ``shift`` (B,), in each
    image's own ``order`` (B,4), of the images ``jittered`` (B,).
    """
    device, pixels = pixels.device, pixels.clone()
    changes = (
        *(lambda x, a, f=f: blend(x, f(x), a) for f in (torch.zeros_like, mean_luma, luma)),
        turn_hue,
    )
    amounts = [*factors, shift]
    for turn in range(4):
        for kind, change in enumerate(changes):
            chosen = (jittered & (order[:, turn] == kind)).nonzero().flatten()
            if len(chosen):
                amount = to_device(amounts[kind][chosen], device)[:, None, None, None]
                chosen = to_device(chosen, device)
                pixels.index_copy_(0, chosen, change(pixels[chosen], amount))
    return pixels


def blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor x + (1 - factor) other, kept in 0..1."""
    return (factor * pixels + (1 - factor) * other).clamp_(0, 1)


def luma(pixels: Tensor) -> Tensor:
    """The grey value (B,1,H,W) of colours (B,3,H,W)."""
    weights = torch.tensor(LUMA, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)


def mean_luma(pixels: Tensor) -> Tensor:
    """The mean grey value (B,1,1,1) of each image."""
    return luma(pixels).mean(dim=(1, 2, 3), keepdim=True)


def turn_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Colours (B,3,H,W) with their hue moved by ``shift`` turns of the colour circle (B,1,1,1)."""
    value, smallest = pixels.amax(dim=1, keepdim=True), pixels.amin(dim=1, keepdim=True)
    chroma = value - smallest
    r, g, b = pixels.split(1, dim=1)
    divisor = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(
        value == r,
        (g - b) / divisor,
        torch.where(value == g, 2 + (b - r) / divisor, 4 + (r - g) / divisor),
    )
    hue = 6 * ((hue / 6 + shift) % 1)
    # each channel falls from its own corner of the colour circle: red 5, green 3, blue 1
    corner = torch.tensor((5.0, 3.0, 1.0), device=pixels.device).view(1, 3, 1, 1)
    k = (corner + hue) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
