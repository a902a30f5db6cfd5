// The access loop of cpus/access.py in C: the same algorithm over the same shared memory, to see what compiled Python costs.
// It must give the same counts and the same clock. No faults and no interrupts: here everything is mapped and no bell rings.
// Built by access.py, which defines for each field F: F_SLOT (header word of its base), F_STRIDE and F_OFFSET, and the constants.
#include <stdint.h>
#include <stdlib.h>

typedef int64_t word;

#define CONSTANT(name) (((const word *)ram)[name##_SLOT])
#define FIELD(name) (ram + CONSTANT(name) + name##_OFFSET)
#define COLUMNS(name) (((const word *)ram)[name##_SLOT + 1])
#define AT(name, i) (*(word *)(FIELD(name) + (i) * (word)name##_STRIDE))
#define ROW(name, i) ((word *)FIELD(name) + (i) * COLUMNS(name))
#define ACQUIRE(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)

enum { LOAD, STORE, IFETCH };
enum { PRESENT = 1, WRITE = 2, ACCESSED = 0x20, DIRTY = 0x40, PERMISSION = WRITE | DIRTY };

static word *frame_words(char *ram, word pfn) { return (word *)FIELD(frame_word) + pfn * 512; }

static int change(word *place, word *seen, word wanted)
{
    return __atomic_compare_exchange_n(place, seen, wanted, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static word find_way(const word *tags, word first, word ways, word tag)
{
    for (word i = first; i < first + ways; i++)
        if (tags[i] == tag)
            return i;
    return -1;
}

static word oldest_way(const word *ages, word first, word ways)
{
    word best = first, best_age = ages[first];
    for (word i = first + 1; i < first + ways; i++)
        if (ages[i] < best_age)
            best = i, best_age = ages[i];
    return best;
}

static word walk(char *ram, word cpu, word vpn, word tag, word kind, word first, word known)
{
    if (kind == LOAD)
        AT(dtlb_load_misses, cpu) += 1;
    else if (kind == STORE)
        AT(dtlb_store_misses, cpu) += 1;
    else
        AT(itlb_load_misses, cpu) += 1;
    AT(cpu_clock, cpu) += CONSTANT(cost_walk);
    word table = AT(mm_pgd, AT(cpu_loaded_mm, cpu));
    for (int level = 3; level > 0; level--) {
        word entry = ACQUIRE(frame_words(ram, table)[(vpn >> (9 * level)) & 511]);
        if (!(entry & PRESENT))
            abort();
        table = entry >> 12;
    }
    word *place = &frame_words(ram, table)[vpn & 511];
    word wanted = kind == STORE ? ACCESSED | DIRTY : ACCESSED, pte, pfn, logical = 0;
    for (;;) {
        pte = ACQUIRE(*place);
        for (;;) {
            if (!(pte & PRESENT) || (kind == STORE && !(pte & WRITE)))
                abort();
            if ((pte & wanted) == wanted)
                break;
            if (change(place, &pte, pte | wanted)) {
                pte |= wanted;
                break;
            }
        }
        pfn = pte >> 12;
        if (!CONSTANT(check))
            break;
        word content_word = ACQUIRE(AT(content, pfn)), now = ACQUIRE(*place);
        if ((now & PRESENT) && now >> 12 == pfn) {
            logical = content_word >> VERSION_BITS;
            if (logical >= CONSTANT(nr_logical))
                abort();
            break;
        }
    }
    word i = known >= 0 ? known : oldest_way(ROW(tlb_age, cpu), first, CONSTANT(stlb_ways));
    ROW(tlb_tag, cpu)[i] = tag;
    ROW(tlb_value, cpu)[i] = pfn << VALUE_SHIFT | (pte & PERMISSION);
    ROW(tlb_logical, cpu)[i] = logical;
    ROW(tlb_filled_ns, cpu)[i] = AT(cpu_clock, cpu);
    return i;
}

static word first_level_miss(char *ram, word cpu, word vpn, word tag, word kind, word stamp, word first, word ways, word known)
{
    word *tags = ROW(tlb_tag, cpu), *values = ROW(tlb_value, cpu), *ages = ROW(tlb_age, cpu);
    word *logicals = ROW(tlb_logical, cpu), *filled = ROW(tlb_filled_ns, cpu);
    word second_ways = CONSTANT(stlb_ways);
    word second_first = CONSTANT(stlb_base) + (vpn & (CONSTANT(stlb_sets) - 1)) * second_ways;
    word second = find_way(tags, second_first, second_ways, tag);
    if (second >= 0 && (kind != STORE || (values[second] & PERMISSION) == PERMISSION)) {
        AT(stlb_hits, cpu) += 1;
        AT(cpu_clock, cpu) += CONSTANT(cost_stlb_hit);
    } else {
        second = walk(ram, cpu, vpn, tag, kind, second_first, second);
    }
    ages[second] = stamp;
    word i = known >= 0 ? known : oldest_way(ages, first, ways);
    tags[i] = tag;
    values[i] = values[second];
    logicals[i] = logicals[second];
    filled[i] = filled[second];
    return i;
}

static void violation(char *ram) { __atomic_fetch_add(&AT(run_violations, 0), 1, __ATOMIC_ACQ_REL); }

static void check_load(char *ram, word pfn, word logical)
{
    word published = ACQUIRE(AT(version, logical)), content_word = ACQUIRE(AT(content, pfn));
    if (content_word >> VERSION_BITS != logical || (content_word & VERSION_MASK) < published)
        violation(ram);
}

static void check_store(char *ram, word pfn, word logical)
{
    word published = ACQUIRE(AT(version, logical)), content_word = ACQUIRE(AT(content, pfn));
    do {
        if (content_word >> VERSION_BITS != logical || (content_word & VERSION_MASK) < published) {
            violation(ram);
            return;
        }
    } while (!change(&AT(content, pfn), &content_word, content_word + 1));
    word newer = (content_word + 1) & VERSION_MASK, seen = ACQUIRE(AT(version, logical));
    while (seen < newer && !change(&AT(version, logical), &seen, newer))
        ;
}

static void put_time(char *ram, word cpu, word tenths, word stamp)
{
    AT(cpu_clock, cpu) = tenths / 10;
    AT(cpu_tenths, cpu) = tenths % 10;
    AT(cpu_visit_stamp, cpu) = stamp;
}

static word visit_pages(char *ram, word cpu, word kind, word vpn, word pages, word count, word done)
{
    word *tags = ROW(tlb_tag, cpu), *values = ROW(tlb_value, cpu), *logicals = ROW(tlb_logical, cpu), *ages = ROW(tlb_age, cpu);
    word base, sets, ways;
    if (kind == LOAD)
        base = CONSTANT(dtlb_base), sets = CONSTANT(dtlb_sets), ways = CONSTANT(dtlb_ways);
    else if (kind == STORE)
        base = CONSTANT(store_base), sets = CONSTANT(store_sets), ways = CONSTANT(store_ways);
    else
        base = CONSTANT(itlb_base), sets = CONSTANT(itlb_sets), ways = CONSTANT(itlb_ways);
    word lines = count < 64 ? count : 64;
    word in_dram = count * CONSTANT(cost_access_tenths) + lines * CONSTANT(cost_line_dram_tenths);
    word in_cxl = count * CONSTANT(cost_access_tenths) + lines * CONSTANT(cost_line_cxl_tenths);
    word fast_end = AT(node_end, 0), check = CONSTANT(check), first_done = done;
    word tenths = 10 * AT(cpu_clock, cpu) + AT(cpu_tenths, cpu), slice_end = 10 * AT(cpu_slice_end, cpu);
    word stamp = AT(cpu_visit_stamp, cpu), context = AT(cpu_context, cpu);
    while (done < pages) {
        if (ACQUIRE(AT(cpu_bell, cpu)) > 0)
            abort();
        if (tenths >= slice_end)
            break;
        word page = vpn + done, tag = page << CONTEXT_BITS | context, first = base + (page & (sets - 1)) * ways;
        stamp += 1;
        word i = find_way(tags, first, ways, tag);
        if (i < 0 || (kind == STORE && (values[i] & PERMISSION) != PERMISSION)) {
            put_time(ram, cpu, tenths, stamp);
            i = first_level_miss(ram, cpu, page, tag, kind, stamp, first, ways, i);
            tenths = 10 * AT(cpu_clock, cpu) + AT(cpu_tenths, cpu), slice_end = 10 * AT(cpu_slice_end, cpu);
            context = AT(cpu_context, cpu);
        }
        ages[i] = stamp;
        word pfn = values[i] >> VALUE_SHIFT;
        if (check) {
            if (kind == STORE)
                check_store(ram, pfn, logicals[i]);
            else
                check_load(ram, pfn, logicals[i]);
        }
        tenths += pfn < fast_end ? in_dram : in_cxl;
        done += 1;
    }
    put_time(ram, cpu, tenths, stamp);
    word accesses = (done - first_done) * count;
    if (kind == LOAD)
        AT(dtlb_loads, cpu) += accesses;
    else if (kind == STORE)
        AT(dtlb_stores, cpu) += accesses;
    else
        AT(itlb_loads, cpu) += accesses;
    AT(page_visits, cpu) += done - first_done;
    return done;
}

#define ROW_FIELD(type, name, i) (*(const type *)(FIELD(name) + (i) * (word)name##_STRIDE))

void run_rows(char *ram, word cpu, word vpn, word first, word last)
{
    for (word i = first; i < last; i++)
        visit_pages(ram, cpu, ROW_FIELD(uint8_t, row_kind, i), vpn + ROW_FIELD(uint32_t, row_page, i),
                    ROW_FIELD(uint32_t, row_pages, i), ROW_FIELD(uint32_t, row_count, i), 0);
}
