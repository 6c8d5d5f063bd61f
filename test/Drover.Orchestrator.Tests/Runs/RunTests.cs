using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.TestKit;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Runs;

/// <summary>Whole runs over a real repository, with the fake agent; items of the acceptance list.</summary>
[Trait("Speed", "slow")]
public sealed class RunTests
{
    private static void Untouched(RunFixture repo) => Assert.Equal("", repo.Git("status", "--porcelain"));

    [Fact]
    public async Task A01_one_task_goes_through_worktree_agent_gate_and_landing()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Add a greeting file", "fake: edit greeting.txt \"hi\"");
        RunReport report = await repo.RunAsync();
        Assert.Equal(RunOutcome.Finished, report.Outcome);
        Assert.Equal(0, report.ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal("hi\n", File.ReadAllText(Path.Combine(repo.Root, "greeting.txt")));
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal(StoredStatus.Completed, row.Status);
        Assert.Equal(repo.Git("rev-parse", "HEAD"), row.LandedOid);
        Assert.Empty(Directory.GetDirectories(Path.Combine(repo.Root, ".drover", "worktrees"), "task-*"));
        Untouched(repo);
    }

    [Fact]
    public async Task A01_independent_tasks_run_within_the_limit_and_all_land_once()
    {
        await using var repo = new RunFixture();
        var tasks = new List<string>();
        for (int i = 0; i < 6; i++)
            tasks.Add(await repo.AddAsync($"Add file number {i}", $"fake: edit f{i}.txt \"{i}\""));
        await using (RunHost host = await repo.StartAsync(new() { Workers = 2 }))
        {
            int most = 0;
            await foreach (EventRow _ in host.EventsAsync())
            {
                most = Math.Max(most, host.Workers.Count);
                if (host.Completion.IsCompleted)
                    break;
            }
            RunReport report = await host.Completion;
            Assert.Equal(RunOutcome.Finished, report.Outcome);
            Assert.InRange(most, 1, 2);
        }
        Assert.Equal(tasks.Order(), repo.Landed().Order());
        Untouched(repo);
    }

    [Fact]
    public async Task Dependencies_are_respected_and_priority_decides()
    {
        await using var repo = new RunFixture();
        string first = await repo.AddAsync("Make the base file", "fake: edit base.txt \"base\"");
        string low = await repo.AddAsync("Do the low one", "fake: append base.txt \"low\"", [first], priority: 1);
        string high = await repo.AddAsync("Do the high one", "fake: append base.txt \"high\"", [first], priority: 9);
        RunReport report = await repo.RunAsync(new() { Workers = 1 });
        Assert.Equal(RunOutcome.Finished, report.Outcome);
        Assert.Equal([first, high, low], repo.Landed());
        Assert.Equal("base\nhigh\nlow\n", File.ReadAllText(Path.Combine(repo.Root, "base.txt")));
    }

    [Fact]
    public async Task A03_a_conflict_gets_one_turn_then_waits_for_a_person_and_a_third_task_lands()
    {
        await using var repo = new RunFixture();
        // B works on the old base until A has landed, and in its conflict turn leaves a marker; C comes last.
        repo.Script("""
            case "$prompt" in *"## Merge conflict"*) printf '<<<<<<< B\n' > shared.txt; touch "$state/turned"; echo tried; exit 0 ;; esac
            case "$DROVER_TASK_TITLE" in
                *"to A"*) printf 'A\n' > shared.txt ;;
                *"to B"*) until_moved; printf 'B\n' > shared.txt ;;
                *) until_file turned; echo c > other.txt ;;
            esac
            echo did it
            """);
        string a = await repo.AddAsync("Change the shared line to A");
        string b = await repo.AddAsync("Change the shared line to B");
        string c = await repo.AddAsync("Add an unrelated file");
        RunReport report = await repo.RunAsync(new() { Workers = 3 });
        Assert.Equal(RunOutcome.Stalled, report.Outcome);
        Assert.Equal(7, report.ExitCode);
        Assert.Equal([a, c], repo.Landed());
        TaskRow row = await repo.TaskAsync(b);
        Assert.Equal((StoredStatus.Paused, "conflict"), (row.Status, row.PauseReason));
        // Its commits survive under their ref.
        Assert.NotEqual("", repo.Git("rev-parse", $"refs/drover/attempts/{b}/1"));
        Assert.Equal(1, row.Attempts);
    }

    [Fact]
    public async Task A03_a_conflict_that_the_agent_solves_lands_in_the_same_attempt()
    {
        await using var repo = new RunFixture();
        repo.Script("""
            case "$prompt" in *"## Merge conflict"*) printf 'both\n' > shared.txt; echo solved; exit 0 ;; esac
            case "$DROVER_TASK_TITLE" in *"one way"*) printf 'one\n' > shared.txt ;; *) until_moved; printf 'another\n' > shared.txt ;; esac
            echo did it
            """);
        string a = await repo.AddAsync("Change the shared line one way");
        string b = await repo.AddAsync("Change the shared line another way");
        RunReport report = await repo.RunAsync(new() { Workers = 2 });
        Assert.Equal(RunOutcome.Finished, report.Outcome);
        Assert.Equal([a, b], repo.Landed());
        Assert.Equal("both\n", File.ReadAllText(Path.Combine(repo.Root, "shared.txt")));
        Assert.Equal(1, (await repo.TaskAsync(b)).Attempts);
        Untouched(repo);
    }

    [Fact]
    public async Task A04_a_target_of_another_name_and_a_user_elsewhere_with_changes_of_every_kind()
    {
        await using var repo = new RunFixture("trunk");
        File.WriteAllText(Path.Combine(repo.Root, ".git", "info", "exclude"), ".drover/\n*.secret\n");
        repo.Git("checkout", "-q", "-b", "mine");
        string W(string name, string text)
        {
            File.WriteAllText(Path.Combine(repo.Root, name), text);
            return text;
        }
        W("README.md", "uncommitted\n");
        W("staged.txt", "staged\n");
        repo.Git("add", "staged.txt");
        W("untracked.txt", "untracked\n");
        W("local.secret", "ignored\n");
        string before = repo.Git("status", "--porcelain", "--ignored") + repo.Git("rev-parse", "HEAD") + repo.Git("diff", "--cached");
        string task = await repo.AddAsync("Change the readme on trunk", "fake: edit README.md \"changed\"");
        RunReport report = await repo.RunAsync(new() { Target = "trunk" });
        Assert.Equal(RunOutcome.Finished, report.Outcome);
        Assert.Equal([task], repo.Landed());
        Assert.Equal(before, repo.Git("status", "--porcelain", "--ignored") + repo.Git("rev-parse", "HEAD") + repo.Git("diff", "--cached"));
        Assert.Equal("uncommitted\n", File.ReadAllText(Path.Combine(repo.Root, "README.md")));
        Assert.Equal("changed", repo.Git("show", "trunk:README.md"));
    }

    [Fact]
    public async Task G05_a_checkout_in_the_way_holds_the_landing_and_the_run_stalls_until_it_is_freed()
    {
        await using var repo = new RunFixture();
        File.WriteAllText(Path.Combine(repo.Root, "README.md"), "the user is editing\n");
        string task = await repo.AddAsync("Change the readme too", "fake: edit README.md \"agent\"");
        RunReport report = await repo.RunAsync();
        Assert.Equal(RunOutcome.Stalled, report.Outcome);
        Assert.Contains("checkout", Assert.Single(report.Waiting).Reason, StringComparison.Ordinal);
        Assert.Contains("README.md", Assert.Single(report.Waiting).Reason, StringComparison.Ordinal);
        Assert.Empty(repo.Landed());
        Assert.Equal("the user is editing\n", File.ReadAllText(Path.Combine(repo.Root, "README.md")));
        repo.Git("checkout", "README.md");
        Assert.Equal(RunOutcome.Finished, (await repo.RunAsync()).Outcome);
        Assert.Equal([task], repo.Landed());
        Assert.Equal(1, (await repo.TaskAsync(task)).Attempts);
        Assert.Equal("agent\n", File.ReadAllText(Path.Combine(repo.Root, "README.md")));
    }

    [Fact]
    public async Task A05_a_red_gate_leaves_the_target_and_the_next_attempt_sees_the_output()
    {
        await using var repo = new RunFixture(testCommand: "sh -c 'test ! -e bad.txt || { echo the-gate-says-no; exit 1; }'");
        string task = await repo.AddAsync("Do it wrong once", "fake: edit good.txt \"x\"\nfake: edit bad.txt \"x\"");
        string next = await repo.AddAsync("Depend on the other one", "fake: edit n.txt \"n\"", [task]);
        RunReport report = await repo.RunAsync(new() { MaxAttempts = 2 });
        Assert.Equal(RunOutcome.FinishedWithFailures, report.Outcome);
        Assert.Empty(repo.Landed());
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal((StoredStatus.Failed, 2), (row.Status, row.Attempts));
        string prompt = File.ReadAllText(Path.Combine(repo.Root, ".drover", "prompts", $"{task}-2.1.txt"));
        Assert.Contains("the-gate-says-no", prompt, StringComparison.Ordinal);
        Assert.Contains($"unreachable because {task} failed", report.Waiting.Single(w => w.Task == next).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A06_a_target_that_moves_between_gate_and_landing_is_merged_and_gated_again()
    {
        await using var repo = new RunFixture();
        string began = repo.State("gate-began"), go = repo.State("gate-may-end");
        repo.Set("testCommand", $"sh -c 'touch {began}; until [ -e {go} ]; do sleep 0.02; done'");
        string task = await repo.AddAsync("Add one more file", "fake: edit mine.txt \"x\"");
        await using RunHost host = await repo.StartAsync();
        await Eventually.TrueAsync(() => File.Exists(began), "the gate runs");
        File.WriteAllText(Path.Combine(repo.Root, "user.txt"), "by the user\n");
        repo.Git("add", "user.txt");
        repo.Git("commit", "-q", "-m", "The user commits meanwhile");
        File.WriteAllText(go, "");
        RunReport report = await host.Completion;
        Assert.Equal(RunOutcome.Finished, report.Outcome);
        Assert.Equal([task], repo.Landed());
        long gates = await repo.BacklogAsync(tx => tx.Session.Number("SELECT count(*) FROM {d}gate_results"));
        Assert.Equal(2, gates);
        Assert.True(File.Exists(Path.Combine(repo.Root, "user.txt")));
        Assert.True(File.Exists(Path.Combine(repo.Root, "mine.txt")));
    }

    [Fact]
    public async Task A09_max_attempts_means_exactly_that_and_waits_grow()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Fail all the time", "fake: fail");
        RunReport report = await repo.RunAsync(new() { MaxAttempts = 3 });
        Assert.Equal(1, report.ExitCode);
        (long attempts, List<string> waits) = await repo.BacklogAsync(tx => (
            tx.Session.Number("SELECT count(*) FROM {d}attempts WHERE task = @t", ("@t", task)),
            tx.Session.Query("SELECT data FROM {d}task_events WHERE task = @t AND type = 'task.retrying' ORDER BY seq", r => r.GetString(0), ("@t", task))));
        Assert.Equal(3, attempts);
        Assert.Equal(2, waits.Count);
    }

    [Fact]
    public async Task A09_a_failed_attempt_is_consumed_and_the_next_one_goes_on()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Fail once and go on", "fake: edit x.txt \"x\"\nfake: fail 1 times");
        RunReport report = await repo.RunAsync(new() { MaxAttempts = 2 });
        Assert.Equal(0, report.ExitCode);
        Assert.Equal(2, (await repo.TaskAsync(task)).Attempts);
    }

    [Fact]
    public async Task A11_an_epic_run_ends_although_other_epics_have_ready_tasks()
    {
        await using var repo = new RunFixture();
        string epic = await repo.BacklogAsync(tx => Board.AddEpic(tx.Session, repo.Project, "Mine").Id);
        string mine = await repo.AddAsync("Do the epic's task", "fake: edit a.txt \"a\"", epic: epic);
        string other = await repo.AddAsync("Leave this one alone", "fake: edit b.txt \"b\"");
        RunReport report = await repo.RunAsync(new() { Epic = epic });
        Assert.Equal(0, report.ExitCode);
        Assert.Equal([mine], repo.Landed());
        Assert.Equal(StoredStatus.Open, (await repo.TaskAsync(other)).Status);
    }

    [Fact]
    public async Task A15_an_agent_that_changes_nothing_is_a_recorded_no_op()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Change nothing at all", "fake: print it is already so\nfake: nothing");
        RunReport report = await repo.RunAsync();
        Assert.Equal(0, report.ExitCode);
        Assert.Empty(repo.Landed());
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal("no-op", row.Outcome);
        Assert.NotEqual("", await repo.BacklogAsync(tx => tx.Session.Text("SELECT noop_reason FROM {d}tasks")));
    }

    [Fact]
    public async Task A13_a_second_run_is_refused_and_names_the_holder()
    {
        await using var repo = new RunFixture();
        await repo.AddAsync("Hang for a while", "fake: hang");
        await using RunHost host = await repo.StartAsync();
        var refused = await Assert.ThrowsAsync<DroverException>(() => repo.StartAsync());
        Assert.Equal(ErrorCode.Conflict, refused.Code);
        Assert.Contains($"pid {Environment.ProcessId}", refused.Message, StringComparison.Ordinal);
        await host.StopAgentsAsync();
        Assert.Equal(130, (await host.Completion).ExitCode);
    }

    [Fact]
    public async Task An_interrupted_run_resumes_the_same_attempt_and_counts_nothing()
    {
        await using var repo = new RunFixture();
        repo.Script("echo x > once.txt\nuntil_file go\necho y > two.txt\necho did it");
        string task = await repo.AddAsync("Wait and then edit");
        await using (RunHost host = await repo.StartAsync())
        {
            await Eventually.TrueAsync(() => File.Exists(Path.Combine(repo.Root, ".drover", "worktrees", $"{task}-1", "once.txt")), "the agent edits");
            await host.StopAgentsAsync();
            Assert.Equal(130, (await host.Completion).ExitCode);
        }
        await repo.NoSurvivorAsync();
        File.WriteAllText(repo.State("go"), "");
        RunReport report = await repo.RunAsync();
        Assert.Equal(0, report.ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal(1, (await repo.TaskAsync(task)).Attempts);
        Untouched(repo);
    }

    [Fact]
    public async Task A_first_interrupt_lets_agents_finish_and_starts_nothing_new()
    {
        await using var repo = new RunFixture();
        repo.Script("case \"$DROVER_TASK_TITLE\" in Finish*) until_file go; echo a > a.txt ;; *) echo b > b.txt ;; esac\necho did it");
        string first = await repo.AddAsync("Finish what began");
        string second = await repo.AddAsync("Do not begin this", blockedBy: [first]);
        await using (RunHost host = await repo.StartAsync())
        {
            await Eventually.TrueAsync(() => host.Workers.Any(w => w.Phase == "agent"), "the agent runs");
            Assert.Equal(1, await host.RequestDrainAsync());
            File.WriteAllText(repo.State("go"), "");
            Assert.Equal(130, (await host.Completion).ExitCode);
        }
        Assert.Equal([first], repo.Landed());
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([first, second], repo.Landed());
    }

    [Fact]
    public async Task A12_a_sub_task_that_fails_twice_then_succeeds_lets_the_parent_complete_once()
    {
        await using var repo = new RunFixture();
        string parent = await repo.AddAsync("Finish the whole group", "fake: edit parent.txt \"p\"");
        string child = await repo.AddAsync("Fail twice and then succeed", "fake: fail 2 times\nfake: edit child.txt \"c\"", parent: parent);
        string sibling = await repo.AddAsync("Be a good sibling", "fake: edit sibling.txt \"s\"", parent: parent);
        RunReport report = await repo.RunAsync(new() { MaxAttempts = 3 });
        Assert.Equal(0, report.ExitCode);
        Assert.Equal(new[] { child, parent, sibling }.Order(), repo.Landed().Order());
        Assert.Equal(parent, repo.Landed()[^1]);
        Assert.Equal((3, 1), ((await repo.TaskAsync(child)).Attempts, (await repo.TaskAsync(sibling)).Attempts));
    }

    [Fact]
    public async Task A_secret_pauses_the_task_and_accept_lands_it()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Leave a key behind", "fake: edit deploy.pem \"-----BEGIN PRIVATE KEY-----\"");
        Assert.Equal(7, (await repo.RunAsync()).ExitCode);
        Assert.Equal("secret", (await repo.TaskAsync(task)).PauseReason);
        Assert.Empty(repo.Landed());
        await repo.BacklogAsync(tx => Board.Resolve(tx.Session, repo.Project, task, Resolution.Accept));
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal(1, (await repo.TaskAsync(task)).Attempts);
    }

    [Fact]
    public async Task A_conflict_turn_that_crashes_is_given_again_with_its_hunks_and_no_marker_lands()
    {
        await using var repo = new RunFixture();
        repo.Script("""
            case "$prompt" in *"## Merge conflict"*)
                if [ ! -e "$state/crashed" ]; then touch "$state/crashed"; kill -9 $$; fi
                echo "$prompt" > "$state/second-turn"
                printf 'A and B\n' > shared.txt; echo solved; exit 0 ;;
            esac
            case "$DROVER_TASK_TITLE" in *first*) printf 'A\n' > shared.txt ;; *) until_moved; printf 'B\n' > shared.txt ;; esac
            echo did it
            """);
        await repo.AddAsync("Change it first");
        string second = await repo.AddAsync("Change it second");
        Assert.Equal(0, (await repo.RunAsync(new() { Workers = 2 })).ExitCode);
        Assert.Equal(2, repo.Landed().Count);
        Assert.Equal("A and B\n", File.ReadAllText(Path.Combine(repo.Root, "shared.txt")));
        Assert.Contains("> <<<<<<<", File.ReadAllText(Path.Combine(repo.Root, ".drover", "second-turn")), StringComparison.Ordinal);
        Assert.Equal(1, (await repo.TaskAsync(second)).Attempts);
    }

    [Fact]
    public async Task A_conflict_left_as_it_is_waits_for_a_person_and_continue_gives_another_turn()
    {
        await using var repo = new RunFixture();
        repo.Script("""
            case "$prompt" in *"Note from the operator"*) printf 'both\n' > shared.txt; echo solved; exit 0 ;; *"## Merge conflict"*) echo I do nothing; exit 0 ;; esac
            case "$DROVER_TASK_TITLE" in *first*) printf 'A\n' > shared.txt ;; *) until_moved; printf 'B\n' > shared.txt ;; esac
            echo did it
            """);
        await repo.AddAsync("Change it first");
        string second = await repo.AddAsync("Change it second");
        Assert.Equal(7, (await repo.RunAsync(new() { Workers = 2 })).ExitCode);
        Assert.Equal("conflict", (await repo.TaskAsync(second)).PauseReason);
        await repo.BacklogAsync(tx => Board.Resolve(tx.Session, repo.Project, second, Resolution.Continue, "keep both"));
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal(2, repo.Landed().Count);
        Assert.Equal("both\n", File.ReadAllText(Path.Combine(repo.Root, "shared.txt")));
        Assert.Equal(1, (await repo.TaskAsync(second)).Attempts);
    }

    [Fact]
    public async Task A_red_gate_is_not_believed_for_the_next_attempt_at_the_same_tree()
    {
        await using var repo = new RunFixture();
        string once = Path.Combine(repo.Root, ".drover", "gate-once");
        repo.Set("testCommand", $"sh -c 'test -e {once} || {{ touch {once}; echo flaky; exit 1; }}'");
        string task = await repo.AddAsync("Write the very same file", "fake: edit same.txt \"x\"");
        Assert.Equal(0, (await repo.RunAsync(new() { MaxAttempts = 2 })).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal(2, (await repo.TaskAsync(task)).Attempts);
    }

    [Fact]
    public async Task An_agent_that_changes_nothing_and_says_nothing_has_failed()
    {
        await using var repo = new RunFixture();
        repo.Script("exit 0");
        string task = await repo.AddAsync("Say and do nothing");
        Assert.Equal(1, (await repo.RunAsync(new() { MaxAttempts = 1 })).ExitCode);
        Assert.Contains("no reason", (await repo.TaskAsync(task)).LastError, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("git switch -q -c elsewhere")]
    [InlineData("git checkout -q --detach")]
    public async Task P7_work_of_an_agent_that_leaves_its_branch_is_not_lost(string move)
    {
        await using var repo = new RunFixture();
        repo.Script(move + "\necho work > work.txt\ngit add work.txt\ngit -c user.name=a -c user.email=b@example.org commit -q -m mine\necho more > more.txt\necho did it");
        string task = await repo.AddAsync("Leave the branch and work there");
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal("work\n", File.ReadAllText(Path.Combine(repo.Root, "work.txt")));
        Assert.Equal("more\n", File.ReadAllText(Path.Combine(repo.Root, "more.txt")));
    }

    [Fact]
    public async Task P11_an_agent_that_deletes_its_worktree_is_never_a_success()
    {
        await using var repo = new RunFixture();
        repo.Script("rm -rf \"$DROVER_WORKTREE\"\necho done");
        string task = await repo.AddAsync("Delete the whole worktree");
        RunReport report = await repo.RunAsync(new() { MaxAttempts = 1 });
        Assert.NotEqual(0, report.ExitCode);
        Assert.Empty(repo.Landed());
        Assert.NotEqual(StoredStatus.Completed, (await repo.TaskAsync(task)).Status);
    }

    [Fact]
    public async Task G18_a_planted_hook_pauses_the_task_and_is_put_back()
    {
        await using var repo = new RunFixture();
        string hook = Path.Combine(repo.Root, ".git", "hooks", "post-checkout"), sentinel = Path.Combine(repo.Root, ".drover", "sentinel");
        repo.Script($"printf '#!/bin/sh\\ntouch {sentinel}\\n' > '{hook}'; chmod +x '{hook}'\necho x > x.txt\necho did it");
        string task = await repo.AddAsync("Plant a hook somewhere");
        Assert.Equal(7, (await repo.RunAsync()).ExitCode);
        Assert.Equal("tampered", (await repo.TaskAsync(task)).PauseReason);
        Assert.False(File.Exists(hook));
        Assert.False(File.Exists(sentinel));
        Assert.Empty(repo.Landed());
    }

    [Fact]
    public async Task X02_a_hanging_agent_is_ended_by_its_clock_and_nothing_survives()
    {
        await using var repo = new RunFixture();
        repo.Set("timeouts.silence", "1s");
        string task = await repo.AddAsync("Hang for ever and ever", "fake: daemonise\nfake: hang stubborn");
        Assert.Equal(1, (await repo.RunAsync(new() { MaxAttempts = 1 })).ExitCode);
        Assert.Equal("timeout", await repo.BacklogAsync(tx => tx.Session.Text("SELECT error_class FROM {d}tasks WHERE id = @t", ("@t", task))));
        await repo.NoSurvivorAsync();
    }

    [Fact]
    public async Task X05_a_flooding_agent_is_bounded_and_lands()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Flood the log with output", "fake: flood 80MB\nfake: edit f.txt \"f\"");
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.True(new FileInfo(Path.Combine(repo.Root, ".drover", "logs", $"{task}-1.1.log")).Length < 70_000_000);
    }
}
