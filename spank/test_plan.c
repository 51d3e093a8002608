/* Tests of the plan parser, run under the address and undefined-behaviour sanitizers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32.h"
#include "plan.h"

static int failures, checks;

#define CHECK(condition)                                                          \
    do {                                                                          \
        checks++;                                                                 \
        if (!(condition)) {                                                       \
            failures++;                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
        }                                                                         \
    } while (0)

#define HEAD "piolet-plan 1\nname demo\nimage squashfs /a/b.sqsh 4096 17\nroot writable\n"

static char why[PLAN_WHY_BYTES];

/* Parse `body` with the checksum that fits. The copy has its exact size, so that reading past it is seen. */
static int parse(struct plan *plan, const char *body) {
    size_t size = strlen(body) + sizeof "end 01234567\n";
    char *text = malloc(size), *exact;
    snprintf(text, size, "%send %08x\n", body, crc32(body, strlen(body)));
    exact = malloc(size - 1);
    memcpy(exact, text, size - 1);
    free(text);
    int result = plan_parse(plan, exact, size - 1, why);
    free(exact);
    return result;
}

static void refused(const char *body, const char *reason) {
    struct plan plan;
    CHECK(parse(&plan, body) == -1);
    CHECK(strstr(why, reason));
    if (!strstr(why, reason)) fprintf(stderr, "  said \"%s\", not \"%s\"\n", why, reason);
    plan_free(&plan);
}

static void test_whole_plan(void) {
    struct plan plan;
    CHECK(!parse(&plan, HEAD "mount bind /a%20b /c ro,noexec,optional,dev\nmount tmpfs /t size=5%25,mode=1777\n"
                             "mount squashfs /d.sqsh /d noexec 8192 18\nprepend /etc/passwd a%0a\nset A %\nset B_1 x%3dy\nunset C\nworkdir /w\n"));
    CHECK(!strcmp(plan.name, "demo") && !strcmp(plan.image.path, "/a/b.sqsh") && !strcmp(plan.workdir, "/w"));
    CHECK(plan.image_kind == IMAGE_SQUASHFS && plan.image.bytes == 4096 && plan.image.mtime_ns == 17 && plan.writable);
    CHECK(plan.mount_count == 3 && plan.text_count == 1 && plan.variable_count == 3);
    CHECK(!strcmp(plan.mounts[0].source, "/a b") && plan.mounts[0].flags == 15);
    CHECK(plan.mounts[1].kind == MOUNT_TMPFS && !strcmp(plan.mounts[1].size, "5%"));
    CHECK(!strcmp(plan.mounts[1].mode, "1777") && !strcmp(plan.texts[0].text, "a\n"));
    CHECK(plan.mounts[2].kind == MOUNT_SQUASHFS && !strcmp(plan.mounts[2].file.path, "/d.sqsh"));
    CHECK(!strcmp(plan.mounts[2].target, "/d") && plan.mounts[2].flags == FLAG_NOEXEC);
    CHECK(plan.mounts[2].file.bytes == 8192 && plan.mounts[2].file.mtime_ns == 18);
    CHECK(!*plan.variables[0].value && !strcmp(plan.variables[1].value, "x=y") && !plan.variables[2].value);
    plan_free(&plan);
}

static void test_directory_and_readonly(void) {
    struct plan plan;
    CHECK(!parse(&plan, "piolet-plan 1\nname d\nimage directory /d\nroot writable size=2g\n"));
    CHECK(plan.writable && !strcmp(plan.root_size, "2g") && !plan.root_directory);
    plan_free(&plan);
    CHECK(!parse(&plan, "piolet-plan 1\nname d\nimage directory /d\nroot readonly\n"));
    CHECK(plan.image_kind == IMAGE_DIRECTORY && !plan.writable && !plan.workdir);
    plan_free(&plan);
}

static void test_refusals(void) {
    static const char *const cases[][2] = {
        {"", "not a container plan"},
        {"#!/bin/sh\n", "not a container plan"},
        {"piolet-plan 1 \n", "not a container plan"},
        {"piolet-plan 2\n", "it has version 2"},
        {"piolet-plan 1\n", "missing"},
        {"piolet-plan 1\nname d\nroot writable\n", "missing"},
        {HEAD "image directory /x\n", "line 5: a second image"},
        {HEAD "root writable\n", "line 5: not a root"},
        {"piolet-plan 1\nroot writable size=x\n", "a root has no \"size=x\""},
        {"piolet-plan 1\nroot readonly size=1g\n", "a root has no"},
        {"piolet-plan 1\nroot writable directory=a\n", "a root has no"},
        {HEAD "name x\n", "not a name"},
        {HEAD "exec /bin/sh\n", "unknown word \"exec\""},
        {HEAD "\n", "not well formed"},
        {HEAD "set A  b\n", "not well formed"},
        {HEAD "set A b c d e f g\n", "not a variable"},
        {HEAD "library x a:b -\n", "not a library"},
        {HEAD "library x a maybe\n", "not a library"},
        {HEAD "program x a -\n", "not a program"},
        {HEAD "symlink % /a\n", "not a symlink"},
        {HEAD "require cxi hope x\n", "not a require"},
        {HEAD "derive RANK guess A\n", "not a derive"},
        {HEAD "derive R%3d copy A\n", "not a derive"},
        {HEAD "start-node ssh 0 a\n", "not a start-node"},
        {HEAD "start-task ssh 10\n", "not a start-task"},
        {HEAD "entrypoint\n", "not a entrypoint"},
        {HEAD "include a\n", "not a include"},
        {HEAD "source /a 1\n", "not a source"},
        {HEAD "set A %0\n", "not well formed"},
        {HEAD "set A %00\n", "not well formed"},
        {HEAD "set A %AF\n", "not well formed"},
        {HEAD "set A \x80\n", "not well formed"},
        {HEAD "set 1A b\n", "not a variable"},
        {HEAD "set A%3d b\n", "not a variable"},
        {HEAD "set A\n", "not a variable"},
        {HEAD "unset A b\n", "not a variable"},
        {HEAD "workdir relative\n", "not a working directory"},
        {HEAD "workdir /a\nworkdir /b\n", "line 6: not a working directory"},
        {HEAD "mount bind /a /b\n", "not a mount"},
        {HEAD "mount bind a /b -\n", "the source is not an absolute path"},
        {HEAD "mount bind /a /b/../c -\n", "the target is not an absolute path"},
        {HEAD "mount bind /a / -\n", "the target is not an absolute path"},
        {HEAD "mount bind /a /b/. -\n", "the target is not an absolute path"},
        {HEAD "mount bind /a /b suid\n", "unknown mount flag \"suid\""},
        {HEAD "mount bind /a /b ro,\n", "unknown mount flag"},
        {HEAD "mount tmpfs /b ro\n", "a tmpfs has no flag"},
        {HEAD "mount tmpfs /b size=1x\n", "a tmpfs has no flag"},
        {HEAD "mount tmpfs /b size=1mm\n", "a tmpfs has no flag"},
        {HEAD "mount tmpfs /b mode=077777\n", "a tmpfs has no flag"},
        {HEAD "mount squashfs /a /b -\n", "not a mount"},
        {HEAD "mount squashfs /a /b - 1 -1\n", "not a mount"},
        {HEAD "mount squashfs a /b - 1 1\n", "the source is not an absolute path"},
        {HEAD "mount squashfs /a / - 1 1\n", "the target is not an absolute path"},
        {HEAD "mount squashfs /a /b dev 1 1\n", "unknown mount flag \"dev\""},
        {HEAD "mount squashfs /a /b optional 1 1\n", "unknown mount flag \"optional\""},
        {HEAD "mount bind /a /b - 1 1\n", "not a mount"},
        {HEAD "prepend etc x\n", "not a text"},
        {"piolet-plan 1\nname d\nimage squashfs /a -1 0\n", "not an image"},
        {"piolet-plan 1\nname d\nimage squashfs /a 99999999999999999999 0\n", "not an image"},
        {"piolet-plan 1\nname d\nimage squashfs a 1 0\n", "not an absolute path"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) refused(cases[i][0], cases[i][1]);
}

static void test_items(void) {
    struct plan plan;
    CHECK(!parse(&plan, HEAD "library cxi libcxi.so.1 optional\nentrypoint /init %2d%2d\nstop mps 5 a %\nlibrary x libb -\n"));
    const struct plan_item *item = plan_next(&plan, ITEM_LIBRARY, NULL);
    CHECK(item && item->count == 3 && !strcmp(item->words[1], "libcxi.so.1") && !strcmp(item->words[2], "optional"));
    item = plan_next(&plan, ITEM_LIBRARY, item);
    CHECK(item && !strcmp(item->words[1], "libb") && !plan_next(&plan, ITEM_LIBRARY, item));
    item = plan_next(&plan, ITEM_STOP, NULL);
    CHECK(item && item->count == 4 && !strcmp(item->words[2], "a") && !*item->words[3]);
    CHECK(!plan_next(&plan, ITEM_DERIVE, NULL));
    plan_free(&plan);
}

/* What is included goes after the plan's own mounts and before its own variables. */
static void test_parts(void) {
    char text[256];
    const char *body = "piolet-plan 1\nmount bind /x /y -\nset A part\nldcache /lib\n";
    snprintf(text, sizeof text, "%send %08x\n", body, crc32(body, strlen(body)));
    struct plan plan, part;
    CHECK(!plan_parse_part(&part, text, strlen(text), why));
    CHECK(!parse(&plan, HEAD "mount bind /a /b -\nset A own\n") && !plan_include(&plan, &part));
    CHECK(plan.mount_count == 2 && !strcmp(plan.mounts[1].source, "/x"));
    CHECK(plan.variable_count == 2 && !strcmp(plan.variables[1].value, "own") && plan_next(&plan, ITEM_CACHE, NULL));
    plan_free(&plan);
    plan_free(&part);
    static const char *const refused_lines[] = {"name x\n", "root writable\n", "include /a\n", "workdir /a\n"};
    for (size_t i = 0; i < sizeof refused_lines / sizeof *refused_lines; i++) {
        char bad[256], whole[300];
        snprintf(bad, sizeof bad, "piolet-plan 1\n%s", refused_lines[i]);
        snprintf(whole, sizeof whole, "%send %08x\n", bad, crc32(bad, strlen(bad)));
        CHECK(plan_parse_part(&part, whole, strlen(whole), why) == -1);
        plan_free(&part);
    }
}

/* Every torn or changed version of a good plan is refused. */
static void test_every_tear_is_noticed(void) {
    char good[512];
    const char *body = HEAD "set A b\n";
    int size = snprintf(good, sizeof good, "%send %08x\n", body, crc32(body, strlen(body)));
    for (int length = 0; length < size; length++) {
        struct plan plan;
        char *torn = malloc((size_t)length + 1);
        memcpy(torn, good, (size_t)length);
        CHECK(plan_parse(&plan, torn, (size_t)length, why) == -1);
        plan_free(&plan);
        free(torn);
    }
    for (int bit = 0; bit < size * 8; bit++) {
        struct plan plan;
        char changed[512];
        memcpy(changed, good, (size_t)size);
        changed[bit / 8] ^= (char)(1 << bit % 8);
        CHECK(plan_parse(&plan, changed, (size_t)size, why) == -1);
        plan_free(&plan);
    }
}

static void test_sizes(void) {
    struct plan plan;
    char *large = malloc(PLAN_MOST_BYTES + 2);
    memset(large, 'a', PLAN_MOST_BYTES + 2);
    CHECK(plan_parse(&plan, large, PLAN_MOST_BYTES + 1, why) == -1 && strstr(why, "too large"));
    plan_free(&plan);
    memset(large, '\n', PLAN_MOST_LINES + 1);
    CHECK(plan_parse(&plan, large, PLAN_MOST_LINES + 1, why) == -1 && strstr(why, "too large"));
    plan_free(&plan);
    CHECK(plan_parse(&plan, "piolet-plan 1\n\0", 15, why) == -1 && strstr(why, "not text"));
    plan_free(&plan);
    free(large);
}

int main(void) {
    CHECK(crc32("123456789", 9) == 0xcbf43926u); /* the check value of CRC-32 */
    test_whole_plan();
    test_directory_and_readonly();
    test_refusals();
    test_items();
    test_parts();
    test_every_tear_is_noticed();
    test_sizes();
    printf("plan parser: %d checks, %d failures\n", checks, failures);
    return failures != 0;
}
