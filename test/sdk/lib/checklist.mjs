// The numbered items of the device and the service checklist that a run must
// prove. A test belongs to an item by its title, which also says what the item
// demands: "device 17: field order sig,se,sr and an empty skn= are accepted".
export const wanted = {
  device: numbers('1-10 12-25 28-101'),
  service: numbers('1-83 86-114'),
};

function numbers(text) {
  return text.split(' ').flatMap((part) => {
    const [first, last = first] = part.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

// exceptions reads EXCEPTIONS.md's table: item -> { part, reason }.
export function exceptions(markdown) {
  const rows = [];
  for (const line of markdown.split('\n')) {
    const cells = line.split('|').slice(1, -1).map((cell) => cell.trim());
    const item = /^(device|service) (\d+)$/.exec(cells[0] ?? '');
    if (item) rows.push({ item: cells[0], part: cells[1], reason: cells[2], covered: cells[3] });
  }
  return rows;
}

// judge turns test results into one verdict per item.
export function judge(results, rows) {
  const items = [];
  for (const [list, wantedNumbers] of Object.entries(wanted)) {
    for (const number of wantedNumbers) {
      const item = `${list} ${number}`;
      const tests = results.filter((result) => itemsOf(result.name).includes(item));
      const whole = rows.find((row) => row.item === item && row.part === 'whole');
      let state = 'passed';
      if (tests.length === 0) state = whole ? 'excepted' : 'missing';
      else if (tests.some((one) => one.state !== 'passed')) state = 'failed';
      items.push({ item, list, state, tests });
    }
  }
  return items;
}

export const itemsOf = (title) => {
  const found = /^(device|service) (\d+(?:, \d+)*):/.exec(title);
  return found ? found[2].split(', ').map((number) => `${found[1]} ${number}`) : [];
};
