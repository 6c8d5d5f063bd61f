using System.Runtime.InteropServices;
using Drover.TestKit;

namespace Drover.Workflows.Tests.Crash;

/// <summary>Many writers on one file, and a volume without space.</summary>
[Trait("Speed", "slow")]
public sealed partial class SharedFileTests(ITestOutputHelper output)
{
    [Fact]
    public async Task S03_S05_fifty_two_writers_in_four_processes_lose_nothing_and_see_no_lock_error()
    {
        const int processes = 4, threads = 13, each = 20, steps = 5;
        using var run = new ChaosRun();
        ChildProcess[] children = [.. Enumerable.Range(0, processes).Select(p => run.Start("write", [$"w{p}", $"{threads}", $"{each}"]))];
        foreach (ChildProcess child in children)
        {
            int exit = await child.ExitAsync(TimeSpan.FromMinutes(3));
            Assert.True(exit == 0, child.Errors);
            Assert.Equal("", child.Errors);
        }
        Assert.Equal(processes * threads * each, await run.ReadAsync(s => s.Number("SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'")));
        Assert.Equal(processes * threads * each * steps, await run.ReadAsync(s => s.Number("SELECT count(*) FROM operation_outputs")));
        Assert.Equal("ok", await run.ReadAsync(s => s.Text("PRAGMA integrity_check")));
        long wal = new FileInfo(run.Database + "-wal").Length;
        output.WriteLine($"log after the run: {wal / 1024 / 1024} MiB");
        Assert.InRange(wal, 0, 128L * 1024 * 1024);
    }

    [Fact]
    public async Task S11_F4_a_full_volume_blocks_the_acknowledgement_and_goes_on_when_space_returns()
    {
        using var folder = new TempFolder();
        string volume = Directory.CreateDirectory(folder.File("volume")).FullName;
        if (Mount("tmpfs", volume, "tmpfs", 0, "size=8m") != 0)
            Assert.Skip($"NOT RUN: mounting a small tmpfs needs root (error {Marshal.GetLastPInvokeError()})");
        try
        {
            await FillAsync(volume);
        }
        finally
        {
            _ = Unmount(volume, 2);
        }
    }

    private async Task FillAsync(string volume)
    {
        string ballast = Path.Combine(volume, "ballast");
        File.WriteAllBytes(ballast, new byte[4 * 1024 * 1024]);
        var big = Workflow.Define<int, int>("big", async (context, n) =>
        {
            await context.StepAsync("text", _ => Task.FromResult(new string('x', 100_000)));
            return n;
        });
        var options = new WorkflowEngineOptions { ApplicationName = "test", ApplicationVersion = "v1" }
            .UseSqlite(Path.Combine(volume, "drover.db")).AddWorkflow(big);
        await using var engine = new WorkflowEngine(options, new NoServices(), Microsoft.Extensions.Logging.Abstractions.NullLogger<WorkflowEngine>.Instance);
        await engine.StartAsync();
        var acknowledged = new List<WorkflowHandle<int>>();
        Task<int> stuck = Task.FromResult(0);
        while (stuck.IsCompleted && acknowledged.Count < 200)
        {
            WorkflowHandle<int>? handle = null;
            stuck = Task.Run(async () =>
            {
                handle = await engine.Client.StartAsync(big, 1);
                return await handle.ResultAsync();
            });
            // Blocked means: the volume has no room and the answer has not come. Nothing is ever answered with an error.
            await Eventually.TrueAsync(() => stuck.IsCompleted || new DriveInfo(volume).AvailableFreeSpace < 200_000, "an answer or a full volume");
            if (stuck.IsCompleted)
            {
                await stuck;
                acknowledged.Add(handle!);
            }
        }
        output.WriteLine($"{acknowledged.Count} workflows of 100 kB were acknowledged before the volume was full");
        Assert.InRange(acknowledged.Count, 1, 199);
        using (var moment = new CancellationTokenSource(TimeSpan.FromSeconds(2)))
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => stuck.WaitAsync(moment.Token));
        File.Delete(ballast);
        Assert.Equal(1, await stuck.WaitAsync(Eventually.Bound));
        Assert.Equal(1, await (await engine.Client.StartAsync(big, 1)).ResultAsync().WaitAsync(Eventually.Bound));
        foreach (WorkflowHandle<int> handle in acknowledged)
            Assert.Equal(1, await handle.ResultAsync());
        Assert.Equal("ok", await engine.Client.ReadAsync(s => s.Text("PRAGMA integrity_check")));
    }

    private sealed class NoServices : IServiceProvider
    {
        public object? GetService(Type serviceType) => null;
    }

    [LibraryImport("libc", EntryPoint = "mount", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Mount(string source, string target, string type, ulong flags, string data);

    [LibraryImport("libc", EntryPoint = "umount2", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Unmount(string target, int flags);
}
