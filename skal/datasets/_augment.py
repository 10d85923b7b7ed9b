"""Random changes of training images, applied to a batch at a time."""

import torch
from torch.nn.functional import pad
from torch.utils.data import default_collate


class CropFlip:
    """Collate function that shifts each image at random and mirrors half of them.

    For skorch's `iterator_train__collate_fn`, so that neither the test images nor the
    images a strategy scores are changed. Draws from torch's global generator.

    Parameters
    ----------
    padding : int, default=4
        Largest shift in pixels; what comes in from outside is 0.
    flip : bool, default=True
        Whether to mirror left and right, which only some images stand.

    Examples
    --------
    >>> import torch
    >>> from skal.datasets import CropFlip
    >>> batch = [(torch.zeros(3, 32, 32), 0), (torch.ones(3, 32, 32), 1)]
    >>> images, labels = CropFlip()(batch)
    >>> images.shape, labels
    (torch.Size([2, 3, 32, 32]), tensor([0, 1]))
    """

    def __init__(self, padding: int = 4, flip: bool = True):
        self.padding = padding
        self.flip = flip

    def __repr__(self):
        return f"CropFlip(padding={self.padding}, flip={self.flip})"

    def __call__(self, samples):
        """Stack (image, label) pairs and change the images.

        Parameters
        ----------
        samples : list of (image of shape (n_channels, height, width), label)

        Returns
        -------
        images : tensor of shape (n_samples, n_channels, height, width)
        labels : tensor of shape (n_samples,)
        """
        images, labels = default_collate(samples)
        n, _, height, width = images.shape
        shifts = torch.randint(2 * self.padding + 1, (2, n, 1))
        rows = shifts[0] + torch.arange(height)
        columns = shifts[1] + torch.arange(width)
        if self.flip:
            mirrored = torch.rand(n, 1) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = pad(images, [self.padding] * 4)
        positions = torch.arange(n)[:, None, None]
        cropped = padded[positions, :, rows[:, :, None], columns[:, None, :]]
        return cropped.permute(0, 3, 1, 2).contiguous(), labels
