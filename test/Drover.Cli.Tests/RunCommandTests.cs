using System.Text.Json;
using Drover.TestKit;

namespace Drover.Cli.Tests;

/// <summary>run, resume, cancel on a live run, interrupts, and the demo, through the real program.</summary>
[Trait("Speed", "slow")]
public sealed class RunCommandTests
{
    [Fact]
    public void A_run_ends_by_itself_with_data_on_stdout_and_progress_on_stderr()
    {
        using var program = new DroverProgram();
        string first = program.Add("Write the parser", "--description", "fake: edit parser.txt \"p\"");
        string second = program.Add("Write the printer", "--description", "fake: edit printer.txt \"q\"", "--blocked-by", first);
        IReadOnlyDictionary<string, string> before = program.Fingerprint();
        JsonElement plan = program.Run("run", "--dry-run", "--json", "--workers", "2").Ok().Json;
        Assert.Equal(first, plan.GetProperty("ready")[0].GetString());
        Assert.Equal(second, plan.GetProperty("waiting")[0].GetProperty("task").GetString());
        Assert.Equal(before, program.Fingerprint());

        Answer answer = program.Run("run", "--workers", "2", "--json").Ok();

        JsonElement report = answer.Json;
        Assert.Equal(("finished", 0, "trunk"), (report.GetProperty("outcome").GetString(), report.GetProperty("exitCode").GetInt32(), report.GetProperty("target").GetString()));
        Assert.All(report.GetProperty("tasks").EnumerateArray(), t => Assert.Equal("completed", t.GetProperty("status").GetString()));
        Assert.Contains($"{first} started: Write the parser", answer.Error, StringComparison.Ordinal);
        Assert.Contains($"{second} landed as ", answer.Error, StringComparison.Ordinal);
        Assert.DoesNotContain('\x1b', answer.Error);
        Assert.Equal([second, first], program.Landings());
        Assert.Contains("finished", program.Run("run").Ok().Output, StringComparison.Ordinal);
    }

    [Fact]
    public void A_failed_task_gives_1_and_retry_brings_it_home()
    {
        using var program = new DroverProgram();
        string task = program.Add("Write the parser", "--description", "fake: fail 1 times\nfake: edit parser.txt \"p\"");
        Answer failed = program.Run("run", "--max-attempts", "1");
        Assert.Equal(1, failed.ExitCode);
        Assert.Contains("finished with failures", failed.Output, StringComparison.Ordinal);
        Assert.Equal("failed", program.StatusOf(task));
        program.Run("retry", task).Ok();
        program.Run("run").Ok();
        Assert.Equal([task], program.Landings());
    }

    [Fact]
    public void Without_continue_on_failure_nothing_new_starts_after_a_failure()
    {
        using var program = new DroverProgram();
        program.Add("Write the parser", "--description", "fake: fail", "--priority", "5");
        string later = program.Add("Write the printer", "--description", "fake: edit printer.txt \"q\"");
        string[] run = ["run", "--workers", "1", "--max-attempts", "1"];
        Assert.Equal(1, program.Run([.. run, "--continue-on-failure", "false"]).ExitCode);
        Assert.Empty(program.Landings());
        Assert.Equal(1, program.Run([.. run, "--continue-on-failure"]).ExitCode);
        Assert.Equal([later], program.Landings());
    }

    [Theory]
    [InlineData(true)]
    [InlineData(true, "true")]
    [InlineData(false, "false")]
    public void Continue_on_failure_alone_means_true(bool expected, params string[] value)
    {
        var caller = new Caller("/", new Dictionary<string, string?>(), new Terminal.Output(TextWriter.Null, TextWriter.Null, false, false, false));
        System.CommandLine.ParseResult parsed = CommandLine.Create(caller).Parse(["run", "--continue-on-failure", .. value, "--json"]);
        Assert.Empty(parsed.Errors);
        Assert.Equal(expected, parsed.GetValue<bool?>("--continue-on-failure"));
    }

    [Fact]
    public async Task A_plain_run_takes_all_epics_again_and_every_run_names_its_scope()
    {
        using var program = new DroverProgram();
        program.UseWaitingAgent();
        string epic = program.Run("epic", "add", "Payments", "--json").Ok().Json.GetProperty("id").GetString()!;
        string first = program.Add("Write the parser", "--epic", epic), second = program.Add("Write the printer");
        using (LiveProgram run = program.Start("run", "--epic", epic))
        {
            await run.SaysAsync($"landing on trunk (epic {epic} only)");
            await program.BeginsAsync(first);
            run.Signal("KILL");
            await run.EndAsync();
        }
        Assert.Contains($"(epic {epic} only): nobody works on it: `drover resume` continues it", program.Run("status").Ok().Output, StringComparison.Ordinal);
        Assert.Equal(JsonValueKind.Null, program.Run("run", "--dry-run", "--json").Ok().Json.GetProperty("epic").ValueKind);
        Assert.Equal(epic, program.Run("resume", "--dry-run", "--json").Ok().Json.GetProperty("epic").GetString());
        program.LetGo();

        Answer all = program.Run("run").Ok();

        Assert.Contains($"epic {epic} -> all\n", all.Error, StringComparison.Ordinal);
        Assert.EndsWith("finished: everything is on trunk\n", all.Output, StringComparison.Ordinal);
        Assert.Equal(new[] { first, second }.Order(), program.Landings().Order());

        program.Add("Write the index");
        program.Add("Write the manual", "--epic", epic);
        Answer one = program.Run("run", "--epic", epic).Ok();
        Assert.EndsWith($"finished: every task of epic {epic} is on trunk; 1 task(s) outside it remain: `drover run` works on all\n", one.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void A_task_that_waits_for_a_person_gives_7_and_resolve_lands_it()
    {
        using var program = new DroverProgram();
        string task = program.Add("Write the key", "--description", "fake: edit id_rsa \"not a real key\"");
        Answer stalled = program.Run("run");
        Assert.True(stalled.ExitCode == 7, stalled.Output + stalled.Error);
        Assert.Contains("stalled", stalled.Output, StringComparison.Ordinal);
        Assert.Contains("id_rsa", program.Run("info", task).Ok().Output, StringComparison.Ordinal);
        program.Run("resolve", task, "--accept").Ok();
        program.Run("run").Ok();
        Assert.Equal([task], program.Landings());
    }

    [Theory]
    [InlineData("INT")]
    [InlineData("TERM")]
    [InlineData("HUP")]
    public async Task Without_a_terminal_one_signal_stops_the_agents_and_resume_finishes_the_same_attempts(string signal)
    {
        using var program = new DroverProgram();
        program.UseWaitingAgent();
        string first = program.Add("Write the parser");
        string second = program.Add("Write the printer", "--blocked-by", first);
        using (LiveProgram run = program.Start("run"))
        {
            await program.BeginsAsync(first);
            Assert.Contains($"held by pid {run.Id}", program.Run("status").Ok().Output, StringComparison.Ordinal);
            run.Signal(signal);
            Answer answer = await run.EndAsync();
            Assert.True(answer.ExitCode == 130, answer.Error);
            Assert.Contains("their work is kept", answer.Error, StringComparison.Ordinal);
        }
        Assert.Contains(", interrupted: nobody works on it: `drover resume` continues it", program.Run("status").Ok().Output, StringComparison.Ordinal);
        program.LetGo();

        Answer resumed = program.Run("resume").Ok();

        Assert.Contains("found the unfinished run", resumed.Error, StringComparison.Ordinal);
        Assert.Equal([second, first], program.Landings());
        Assert.All(program.Tasks().Values, t => Assert.Equal(1, t.GetProperty("attempts").GetInt32()));
    }

    [Fact]
    public async Task A_second_run_says_who_holds_the_repository_and_cancel_reaches_a_running_task()
    {
        using var program = new DroverProgram();
        string slow = program.Add("Write the parser", "--description", "fake: hang");
        string other = program.Add("Write the printer", "--description", "fake: edit printer.txt \"q\"");
        using LiveProgram run = program.Start("run", "--verbose");
        await run.SaysAsync($"{slow} agent");

        foreach (string command in (string[])["run", "resume"])
        {
            Answer second = program.Run(command);
            Assert.Equal(4, second.ExitCode);
            Assert.Contains($"held by pid {run.Id}", Assert.Single(second.ErrorLines), StringComparison.Ordinal);
        }

        run.Signal("STOP");
        Answer stopped = program.Run("run");
        run.Signal("CONT");
        Assert.Equal(4, stopped.ExitCode);
        Assert.Contains($"held by pid {run.Id}, stopped", Assert.Single(stopped.ErrorLines), StringComparison.Ordinal);

        Assert.Equal($"Cancelled {slow}: Write the parser\n", program.Run("cancel", slow, "--reason", "too slow").Ok().Output);
        Answer answer = await run.EndAsync();
        Assert.True(answer.ExitCode == 0, answer.Error);
        Assert.Equal("cancelled", program.StatusOf(slow));
        Assert.Equal([other], program.Landings());
        Answer late = program.Run("cancel", other);
        Assert.Equal(4, late.ExitCode);
        Assert.Contains("already landed", Assert.Single(late.ErrorLines), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Resume_without_anything_to_do_says_so_and_watch_shows_changes()
    {
        using var program = new DroverProgram();
        Answer nothing = program.Run("resume");
        Assert.Equal(3, nothing.ExitCode);
        Assert.Contains("nothing to resume", Assert.Single(nothing.ErrorLines), StringComparison.Ordinal);
        program.Add("Write the parser");
        using var watch = new LiveProgram(program.StartInfo(program.Root, "status", "--oneline", "--watch"));
        await watch.PrintsAsync("0 running, 1 queued, 0 completed, 0 blocked\n");
        program.Add("Write the printer");
        await watch.PrintsAsync("0 running, 2 queued, 0 completed, 0 blocked\n");
        watch.Signal("INT");
        Assert.Equal(130, (await watch.EndAsync()).ExitCode);
    }

    [Fact]
    public void Status_on_one_line_needs_neither_the_rich_terminal_library_nor_hosting()
    {
        using var program = new DroverProgram();
        program.Add("Write the parser");
        using var copy = new TempFolder();
        foreach (string file in Directory.GetFiles(AppContext.BaseDirectory, "*"))
        {
            string name = Path.GetFileName(file);
            bool left = name.StartsWith("Spectre", StringComparison.Ordinal) || name.StartsWith("Microsoft.Extensions.Hosting", StringComparison.Ordinal)
                || name.StartsWith("Microsoft.Extensions.Configuration", StringComparison.Ordinal) || name == "drover.deps.json";
            if (!left)
                File.Copy(file, copy.File(name));
        }
        System.Diagnostics.ProcessStartInfo start = program.StartInfo(program.Root, "status", "--oneline");
        start.ArgumentList[0] = copy.File("drover.dll");
        using System.Diagnostics.Process process = System.Diagnostics.Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd(), error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.Equal("0 running, 1 queued, 0 completed, 0 blocked\n", output);
        Assert.Equal("", error);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_demo_lands_a_real_graph_exactly_once(bool crash)
    {
        using var program = new DroverProgram(git: false, init: false);
        Answer answer = program.Run(crash ? ["demo", "--crash", "--json"] : ["demo", "--json"]);
        Assert.True(answer.ExitCode == 0, answer.Error);
        JsonElement demo = answer.Json;
        Assert.True(demo.GetProperty("tasks").GetInt32() >= 8);
        Assert.Equal(demo.GetProperty("tasks").GetInt32(), demo.GetProperty("landed").GetInt32());
        Assert.Equal(demo.GetProperty("tasks").GetInt32() + 1, demo.GetProperty("log").GetArrayLength());
        Assert.Equal(crash, answer.Error.Contains("SIGKILL to the run", StringComparison.Ordinal));
    }
}
