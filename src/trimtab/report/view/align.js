// Two lists of tokens side by side: what they share from the start, and what they share after they parted.

const LARGEST_TABLE = 4_000_000;

function sharedStart(one, two) {
  const end = Math.min(one.length, two.length);
  let i = 0;
  while (i < end && one[i].id === two[i].id) i++;
  return i;
}

// For each token its partner in the other list, or -1: a longest common subsequence after the shared start.
function align(one, two) {
  const start = sharedStart(one, two);
  const left = new Int32Array(one.length).fill(-1), right = new Int32Array(two.length).fill(-1);
  for (let i = 0; i < start; i++) left[i] = right[i] = i;
  let endOne = one.length, endTwo = two.length;
  while (endOne > start && endTwo > start && one[endOne - 1].id === two[endTwo - 1].id) {
    endOne--, endTwo--;
    left[endOne] = endTwo, right[endTwo] = endOne;
  }
  const rows = endOne - start, columns = endTwo - start;
  if (rows * columns > LARGEST_TABLE) return { start, left, right };
  const width = columns + 1, table = new Uint16Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--)
      table[i * width + j] = one[start + i].id === two[start + j].id
        ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
  for (let i = 0, j = 0; i < rows && j < columns;) {
    if (one[start + i].id === two[start + j].id) left[start + i] = start + j, right[start + j] = start + i, i++, j++;
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return { start, left, right };
}
