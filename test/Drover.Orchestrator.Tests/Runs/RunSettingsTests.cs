using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.TestKit;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Runs;

/// <summary>Each setting does in a whole run what its line of documentation says.</summary>
[Trait("Speed", "slow")]
public sealed class RunSettingsTests
{
    [Fact]
    public async Task Set_up_runs_once_for_each_worktree_and_what_it_made_is_kept_for_the_gate()
    {
        await using var repo = new RunFixture();
        repo.Ignore("deps/");
        string log = repo.State("set-ups");
        repo.Set("worktree.setup", $"sh -c 'mkdir deps && touch deps/made && pwd >> {log}'");
        repo.Set("testCommand", "test -e deps/made");
        // The first turn is interrupted: its worktree is not set up again.
        repo.Script("test -e deps/made || exit 1\nif [ ! -e \"$state/began\" ]; then touch \"$state/began\"; exec sleep 3600; fi\necho x > \"$DROVER_TASK_ID.txt\"\necho did it");
        string first = await repo.AddAsync("Need the set-up first"), second = await repo.AddAsync("Need the set-up second", blockedBy: [first]);
        await using (RunHost host = await repo.StartAsync())
        {
            await Eventually.TrueAsync(() => File.Exists(repo.State("began")), "the agent works");
            await host.StopAgentsAsync();
            Assert.Equal(130, (await host.Completion).ExitCode);
        }
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([first, second], repo.Landed());
        Assert.Equal(new[] { $"{first}-1", $"{second}-1", "gate-0" }.Order(), File.ReadAllLines(log).Select(Path.GetFileName).Order());
        Assert.Equal("", repo.Git("ls-tree", "--name-only", "HEAD", "deps"));
    }

    [Fact]
    public async Task A_set_up_that_fails_waits_for_a_person_and_goes_on_when_it_is_mended()
    {
        await using var repo = new RunFixture();
        repo.Set("worktree.setup", "sh -c 'echo no network; exit 3'");
        string task = await repo.AddAsync("Never get to the agent", "fake: edit x.txt \"x\"");
        Assert.Equal(7, (await repo.RunAsync()).ExitCode);
        Assert.Equal((StoredStatus.Paused, "setup"), ((await repo.TaskAsync(task)).Status, (await repo.TaskAsync(task)).PauseReason));
        Assert.Empty(repo.Landed());
        repo.Set("worktree.setup", "true");
        await repo.BacklogAsync(tx => Board.Resolve(tx.Session, repo.Project, task, Resolution.Continue));
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal(1, (await repo.TaskAsync(task)).Attempts);
    }

    [Fact]
    public async Task L03_copied_files_are_private_stay_out_of_the_work_and_their_values_out_of_the_logs()
    {
        await using var repo = new RunFixture();
        repo.Ignore(".env");
        string secret = Path.Combine(repo.Root, ".env");
        File.WriteAllText(secret, "# a comment\nAPI_KEY=supersecretvalue123\nexport QUOTED=\"anothersecret456\"\n");
        File.SetUnixFileMode(secret, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
        repo.Set("worktree.copy", ".env");
        repo.Script("stat -c %a .env > mode.txt\ncat .env\ncat .env >&2\necho did it");
        string task = await repo.AddAsync("Print what must not be seen");
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal("600", repo.Git("show", "HEAD:mode.txt"));
        Assert.Equal("", repo.Git("ls-tree", "--name-only", "HEAD", ".env"));
        string[] logs = Directory.GetFiles(repo.State("logs"), "*", SearchOption.AllDirectories);
        Assert.Contains(logs, file => File.ReadAllText(file).Contains("API_KEY", StringComparison.Ordinal));
        foreach (string file in logs)
        {
            Assert.DoesNotContain("supersecretvalue123", File.ReadAllText(file), StringComparison.Ordinal);
            Assert.DoesNotContain("anothersecret456", File.ReadAllText(file), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_copied_file_that_is_missing_waits_for_a_person_and_goes_on_when_it_is_there()
    {
        await using var repo = new RunFixture();
        repo.Ignore(".env");
        repo.Set("worktree.copy", ".env");
        repo.Script("cp .env copied.txt\necho did it");
        string task = await repo.AddAsync("Need the file that is missing");
        Assert.Equal(7, (await repo.RunAsync()).ExitCode);
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal((StoredStatus.Paused, "setup"), (row.Status, row.PauseReason));
        Assert.Contains(".env", row.Question, StringComparison.Ordinal);
        File.WriteAllText(Path.Combine(repo.Root, ".env"), "PORT=1\n");
        await repo.BacklogAsync(tx => Board.Resolve(tx.Session, repo.Project, task, Resolution.Continue));
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.Equal(1, (await repo.TaskAsync(task)).Attempts);
    }

    [Fact]
    public async Task Worktrees_lie_under_their_root_and_only_kept_paths_stay_between_gates()
    {
        using var elsewhere = new TempFolder("trees");
        await using var repo = new RunFixture();
        repo.Ignore("cache/", "junk/");
        repo.Set("worktree.root", elsewhere.Path);
        repo.Set("gate.keep", "cache");
        string gates = repo.State("gates");
        repo.Set("testCommand", $"sh -c 'test ! -e junk && mkdir -p cache junk && echo x >> cache/count && pwd >> {gates} && cp cache/count {repo.State("count")}'");
        repo.Script("pwd > \"$state/$DROVER_TASK_ID\"\necho x > \"$DROVER_TASK_ID.txt\"\necho did it");
        string first = await repo.AddAsync("Work in another place"), second = await repo.AddAsync("Work in another place too", blockedBy: [first]);
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([first, second], repo.Landed());
        Assert.Equal(Path.Combine(elsewhere.Path, first + "-1"), File.ReadAllText(repo.State(first)).Trim());
        Assert.Equal(["x", "x"], File.ReadAllLines(repo.State("count")));
        Assert.All(File.ReadAllLines(gates), folder => Assert.StartsWith(elsewhere.Path + "/", folder, StringComparison.Ordinal));
        Assert.False(Directory.Exists(repo.State("worktrees")) && Directory.GetDirectories(repo.State("worktrees")).Length > 0);
        Assert.Empty(Directory.GetDirectories(elsewhere.Path, "task-*"));
    }

    [Fact]
    public async Task Agent_set_up_and_gate_see_passed_variables_and_the_environments_name_and_nothing_else()
    {
        Environment.SetEnvironmentVariable("DROVER_TEST_PASSED", "given");
        Environment.SetEnvironmentVariable("DROVER_TEST_WITHHELD", "withheld");
        try
        {
            await using var repo = new RunFixture();
            repo.Set("env.pass", "DROVER_TEST_PASSED");
            repo.SetVariable("DROVER_ENV", "staging");
            string say = "printf %s/%s/%s \"$DROVER_TEST_PASSED\" \"$DROVER_TEST_WITHHELD\" \"$DROVER_ENV\"";
            repo.Set("worktree.setup", $"sh -c '{say} > {repo.State("in-set-up")}'");
            repo.Set("testCommand", $"sh -c '{say} > {repo.State("in-gate")}'");
            repo.Script($"{say} > seen.txt\necho did it");
            string task = await repo.AddAsync("Look at the environment");
            Assert.Equal(0, (await repo.RunAsync()).ExitCode);
            Assert.Equal([task], repo.Landed());
            Assert.Equal("given//staging", File.ReadAllText(Path.Combine(repo.Root, "seen.txt")));
            Assert.Equal("given//staging", File.ReadAllText(repo.State("in-gate")));
            Assert.Equal("given//staging", File.ReadAllText(repo.State("in-set-up")));
        }
        finally
        {
            Environment.SetEnvironmentVariable("DROVER_TEST_PASSED", null);
            Environment.SetEnvironmentVariable("DROVER_TEST_WITHHELD", null);
        }
    }

    [Fact]
    public async Task More_deletions_than_allowed_wait_for_a_person_and_accept_lands_them()
    {
        await using var repo = new RunFixture();
        for (int i = 0; i < 30; i++)
            File.WriteAllText(Path.Combine(repo.Root, $"f{i}.txt"), "x\n");
        repo.Git("add", "-A");
        repo.Git("commit", "-q", "-m", "Many files");
        repo.Set("landing.maxDeletedPaths", "2");
        string few = await repo.AddAsync("Delete as many as allowed", "fake: delete f0.txt\nfake: delete f1.txt");
        string many = await repo.AddAsync("Delete one more than allowed", "fake: delete f2.txt\nfake: delete f3.txt\nfake: delete f4.txt");
        Assert.Equal(7, (await repo.RunAsync()).ExitCode);
        Assert.Equal([few], repo.Landed());
        Assert.Equal((StoredStatus.Paused, "deletions"), ((await repo.TaskAsync(many)).Status, (await repo.TaskAsync(many)).PauseReason));
        Assert.True(File.Exists(Path.Combine(repo.Root, "f2.txt")));
        await repo.BacklogAsync(tx => Board.Resolve(tx.Session, repo.Project, many, Resolution.Accept));
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([few, many], repo.Landed());
        Assert.False(File.Exists(Path.Combine(repo.Root, "f2.txt")));
    }

    [Fact]
    public async Task X02_an_agent_that_talks_for_ever_is_ended_by_the_clock_of_its_turn()
    {
        await using var repo = new RunFixture();
        repo.Set("timeouts.task", "1s");
        repo.Script("while :; do echo still here; sleep 0.1; done");
        string task = await repo.AddAsync("Talk for ever and ever");
        Assert.Equal(1, (await repo.RunAsync(new() { MaxAttempts = 1 })).ExitCode);
        Assert.Equal("timeout", await repo.BacklogAsync(tx => tx.Session.Text("SELECT error_class FROM {d}tasks WHERE id = @t", ("@t", task))));
        await repo.NoSurvivorAsync();
    }

    [Fact]
    public async Task X02_a_gate_that_hangs_is_ended_by_its_clock_and_the_target_never_moves()
    {
        await using var repo = new RunFixture(testCommand: "sh -c 'echo the gate begins; sleep 3600 & wait'");
        repo.Set("timeouts.gate", "1s");
        string task = await repo.AddAsync("Hang the gate for ever", "fake: edit x.txt \"x\"");
        Assert.Equal(1, (await repo.RunAsync(new() { MaxAttempts = 1 })).ExitCode);
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal((StoredStatus.Failed, 1), (row.Status, row.Attempts));
        Assert.Equal("gate", await repo.BacklogAsync(tx => tx.Session.Text("SELECT error_class FROM {d}tasks WHERE id = @t", ("@t", task))));
        Assert.Empty(repo.Landed());
        await repo.NoSurvivorAsync();
    }

    [Fact]
    public async Task A_claimed_task_whose_workflow_never_begins_is_released_after_the_claim_timeout()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Be claimed and then forgotten", "fake: edit x.txt \"x\"");
        // What a run leaves that claims a task whose queue nobody serves: the workflow's row is there and alive, and never starts.
        await repo.BacklogAsync(tx =>
        {
            OpenedRun run = Board.OpenRun(tx.Session, repo.Project, new RunOptions { Target = "refs/heads/" + repo.Target, ContinueOnFailure = true }, new RunOptions(), "nobody");
            ClaimedTask claimed = Assert.Single(Board.ClaimRunnable(tx.Session, repo.Project, run.Run.Id, 1));
            tx.Enqueue(new WorkflowQueue("nobody-serves-this"), TaskFlow.Definition,
                new TaskInput(repo.Project, run.Run.Id, claimed.Task, claimed.Attempt, claimed.Continuation, claimed.MaxAttempts), new() { WorkflowId = claimed.WorkflowId });
            return tx.Session.Execute("UPDATE {d}tasks SET claimed_at = claimed_at - 120000 WHERE id = @t", ("@t", task));
        });
        // Two minutes old: not stale by the default of five, stale by the one that is given here.
        repo.SetVariable("DROVER_CLAIM_TIMEOUT", "1m");
        Assert.Equal(0, (await repo.RunAsync()).ExitCode);
        Assert.Equal([task], repo.Landed());
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal((1, 1), (row.Attempts, row.Consumed));
        Assert.Equal($"drover:{repo.Project}:task:{task}:1.r1", row.WorkflowId);
        Assert.Contains("claim timeout", await repo.BacklogAsync(tx => tx.Session.Text("SELECT data FROM {d}task_events WHERE type = 'task.released'")), StringComparison.Ordinal);
    }
}
